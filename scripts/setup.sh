#!/bin/sh
# Make this checkout ready to run.
#
#   scripts/setup.sh         .venv, exactly as requirements-dev.lock has it, and the project in it (editable)
#   scripts/setup.sh tools   the Debian programs that some tests compare us with
#   scripts/setup.sh bench   what only `make bench` needs: requirements-bench.lock, added to that .venv, and the
#                            Debian programs that it measures beside us
#
# A virtual environment is complete when .venv/.complete holds the fingerprint of all that went into it. The
# file is written last, so an interrupted installation is never mistaken for a finished one.
# The system is changed (apt-get) only as root, and only in CI or in a container without systemd: everywhere
# else the command is printed for a person to decide on.
set -eu

cd "$(dirname "$0")/.."

# Programs that tests use as the independent witness, as PACKAGE or PACKAGE:COMMAND where the names differ.
TOOLS="zstd sqlite3 curl nginx minisign ffmpeg mpv aria2:aria2c chromium chromium-driver:chromedriver"
# Programs that publish in another way, for the benchmarks.
BENCH_TOOLS="zstd zchunk:zck casync restic xdelta3"

STAMP=.venv/.complete
LOCK=requirements-dev.lock
BENCH_STAMP=.venv/.bench
BENCH_LOCK=requirements-bench.lock
PIP="env PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install --quiet --no-input"
POLICY=/usr/sbin/policy-rc.d
POLICY_MARK="# made by music-cloud's scripts/setup.sh for one apt-get run; safe to remove"

# Debian keeps daemons such as nginx in sbin, which is not on everyone's PATH.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() {
    echo "setup: $*" >&2
}

# --- apt ---

may_change_system() {
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || return 1
    [ -n "${CI:-}" ] || [ ! -d /run/systemd/system ]
}

remove_policy() {
    if grep -qsF "$POLICY_MARK" "$POLICY"; then rm -f "$POLICY"; fi
}

# Debian starts a service as soon as its package is installed, unless policy-rc.d answers 101. An
# administrator's own policy-rc.d stays as it is; one of ours that an earlier, killed run left is removed.
# Never fails: sets reason to what apt-get said, and the caller looks whether it has what it wanted.
apt_install() {
    trap remove_policy EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    if [ ! -e "$POLICY" ]; then
        printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
        chmod 755 "$POLICY"
    fi
    # Stale or partly unreachable package lists are often good enough: the installation decides.
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 update >/dev/null 2>&1 || true
    # shellcheck disable=SC2086  # a list of packages
    reason=$(DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 \
        install --no-install-recommends $1 2>&1 >/dev/null | sed -n 's/^E: //p' | head -n 1)
    remove_policy
    trap - EXIT INT TERM
}

missing_tools() {
    list=
    for tool in $1; do
        command -v "${tool#*:}" >/dev/null || list="$list${list:+ }${tool%%:*}"
    done
    echo "$list"
}

# $1: programs, as above. $2: what cannot be done without them.
install_tools() {
    missing=$(missing_tools "$1")
    [ -n "$missing" ] || return 0
    if may_change_system; then
        say "installing $missing"
        apt_install "$missing"
        missing=$(missing_tools "$1")
        [ -n "$missing" ] || return 0
        say "apt-get could not install $missing (${reason:-for no given reason}); their $2 cannot run"
        [ -z "${CI:-}" ] || exit 1
    else
        say "$2 that need a missing program are skipped, and named at the end; to run them too:"
        say "    sudo apt-get install --no-install-recommends $missing"
    fi
}

# --- Python ---

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

can_make_venv() {
    "$1" -c 'import venv, ensurepip' >/dev/null 2>&1
}

# Sets python to the first Python that will do, or else to one that only lacks venv, or else to nothing.
find_python() {
    python=
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        is_new_enough "$candidate" || continue
        if can_make_venv "$candidate"; then
            python=$candidate
            return
        fi
        python=${python:-$candidate}
    done
}

choose_python() {
    find_python
    if [ -z "$python" ]; then
        say "Python 3.11 or newer is needed; ${PYTHON:-what the PATH has} is not. Set PYTHON=/path/to/python3"
        exit 1
    fi
    if ! can_make_venv "$python" && may_change_system; then
        say "installing python3-venv"
        apt_install python3-venv
        find_python
    fi
    if ! can_make_venv "$python"; then
        say "$python cannot make a virtual environment: it has no venv (Debian: apt-get install python3-venv)"
        exit 1
    fi
}

# All that the environment is made from: the files given, and more. The checkout's path is part of it: an
# environment cannot be moved.
fingerprint() {
    "$python" - "$@" <<'END'
import hashlib, os, pathlib, sys

digest = hashlib.sha256("\0".join([sys.version, sys.base_prefix, os.getcwd()]).encode())
for name in sys.argv[1:]:
    digest.update(b"\0" + pathlib.Path(name).read_bytes())
print(digest.hexdigest())
END
}

make_venv() {
    choose_python
    wanted=$(fingerprint "$LOCK" pyproject.toml)
    if [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ] && .venv/bin/python -c pass 2>/dev/null; then
        return
    fi
    say "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
    if ! { $PIP --require-hashes -r "$LOCK" && $PIP --no-deps --no-build-isolation -e .; }; then
        say "the installation failed (see above); run it again when that is mended"
        exit 1
    fi
    echo "$wanted" >"$STAMP"
}

# A stamp of its own, so that .venv/.complete says the same with and without it; a new .venv has neither.
add_bench() {
    python=.venv/bin/python
    wanted=$(fingerprint "$BENCH_LOCK")
    if [ "$(cat "$BENCH_STAMP" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    say "installing what the benchmarks need"
    if ! $PIP --require-hashes -r "$BENCH_LOCK"; then
        say "the installation failed (see above); run it again when that is mended"
        exit 1
    fi
    echo "$wanted" >"$BENCH_STAMP"
}

case "${1-}" in
    "") make_venv ;;
    tools) install_tools "$TOOLS" tests ;;
    bench)
        add_bench
        install_tools "$BENCH_TOOLS" comparisons
        ;;
    *)
        say "usage: scripts/setup.sh [tools | bench]"
        exit 2
        ;;
esac
