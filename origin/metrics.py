"""What the origin counts, and how Prometheus reads it: the text exposition format, version 0.0.4.

Invariant: integers only, counted in the event loop, so nothing is locked and a request pays 2 µs more;
nothing is counted by token, file or client, and every label has few values. One process: several workers
count each for itself. Who may read it is decided in `origin.monitoring`.
"""

from __future__ import annotations

import platform
from collections.abc import Awaitable, Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, cast

from origin.logs import begin_request
from origin.refusals import Refusals
from origin.reply import ERROR_BODIES

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Message, Receive, Send

    Endpoint = Callable[[HTTPScope, Receive, Send], Awaitable[None]]

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
UNROUTED = "other"  # What no endpoint stands for; their paths are anybody's invention.


def body_bytes_of(message: Message) -> int:
    """How many bytes of a body an ASGI message sends, in memory or by the kernel."""
    if message["type"] == "http.response.body":
        return len(message["body"])
    # A head, or a message of ASGI's zero-copy send extension, whose count is optional there.
    return cast("dict[str, Any]", message).get("count") or 0


class Counts:
    """Of one endpoint: requests that are being answered, answers by status, bytes of bodies."""

    __slots__ = ("active", "answers", "body_bytes")

    def __init__(self) -> None:
        self.active = 0
        self.answers: dict[int, int] = {}
        self.body_bytes = 0

    def add(self, status: int, body_bytes: int = 0) -> None:
        """Count an answer that has begun."""
        self.answers[status] = self.answers.get(status, 0) + 1
        self.body_bytes += body_bytes


class Metrics:
    """The counts of all endpoints since `started_s`, in Unix seconds."""

    def __init__(self, refusals: Refusals, started_s: float) -> None:
        self._refusals = refusals
        self._started_s = started_s
        self._endpoints: dict[str, Counts] = {UNROUTED: Counts()}

    def counted(self, name: str, endpoint: Endpoint) -> Endpoint:
        """The same ASGI application, with each of its answers counted under a name."""
        counts = self._endpoints.setdefault(name, Counts())

        async def counting(scope: HTTPScope, receive: Receive, send: Send) -> None:
            begin_request()
            has_begun = False

            async def counted_send(message: Message) -> None:
                nonlocal has_begun
                if message["type"] == "http.response.start":
                    has_begun = True
                    counts.add(message["status"])
                    await send(message)
                else:
                    await send(message)  # First: what the server did not take was not sent.
                    counts.body_bytes += body_bytes_of(message)

            counts.active += 1
            try:
                await endpoint(scope, receive, counted_send)
            except Exception:
                if not has_begun:  # Then the application answers it.
                    counts.add(500, _error_bytes(scope["method"], 500))
                raise
            finally:
                counts.active -= 1

        return counting

    def count_unrouted(self, method: str, status: int) -> None:
        """Count an error for which there was no endpoint, with its body of `origin.reply`."""
        self._endpoints[UNROUTED].add(status, _error_bytes(method, status))

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        named = sorted(self._endpoints.items())
        answers = [
            ({"endpoint": name, "status": str(status)}, count)
            for name, counts in named
            for status, count in sorted(counts.answers.items())
        ]
        families = (
            ("requests_total", "counter", "Answers that were begun.", answers),
            (
                "body_bytes_total",
                "counter",
                "Bytes of bodies that were handed to the network.",
                [({"endpoint": name}, counts.body_bytes) for name, counts in named],
            ),
            (
                "active_requests",
                "gauge",
                "Requests that are being answered now.",
                [({"endpoint": name}, counts.active) for name, counts in named],
            ),
            (
                "refusals_total",
                "counter",
                "Links that were refused.",
                [({"reason": reason.value}, count) for reason, count in self._refusals.counts.items()],
            ),
            ("build_info", "gauge", "Always 1.", [(_build(), 1)]),
        )
        lines: list[str] = []
        for name, kind, told, samples in families:
            lines += _family(f"music_cloud_origin_{name}", kind, told, samples)
        # By the name that Prometheus's own libraries give it.
        start: list[tuple[dict[str, str], float]] = [({}, self._started_s)]
        lines += _family("process_start_time_seconds", "gauge", "Start, in Unix seconds.", start)
        return "".join(f"{line}\n" for line in lines).encode("utf-8")


def _family(
    name: str, kind: str, told: str, samples: Iterable[tuple[dict[str, str], float]]
) -> Iterable[str]:
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _build() -> dict[str, str]:
    try:
        ours = version("music-cloud")
    except PackageNotFoundError:  # A checkout that was never installed.
        ours = "unknown"
    return {"version": ours, "python": platform.python_version()}


def _error_bytes(method: str, status: int) -> int:
    return 0 if method == "HEAD" else len(ERROR_BODIES[status])
