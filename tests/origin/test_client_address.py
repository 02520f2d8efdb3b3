"""Who the client is: the peer, unless a proxy that is trusted says otherwise."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import MalformedError
from origin.client_address import NOBODY, client_address, is_inside, parse_address, parse_trusted_proxies

TRUSTED = parse_trusted_proxies("127.0.0.1, 10.0.0.0/8, 2001:db8::/32")


def seen(peer: tuple[str, int] | None, *forwarded: str, trusted: str | None = None) -> str | None:
    """The client's address, for `X-Forwarded-For` headers in their order."""
    headers = [(b"x-forwarded-for", line.encode("latin-1")) for line in forwarded]
    proxies = TRUSTED if trusted is None else parse_trusted_proxies(trusted)
    address = client_address(peer, headers, proxies)
    return None if address is None else str(address)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["192.0.2.66, 198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["192.0.2.66", "198.51.100.1, 10.1.2.3"], "198.51.100.1"),
        ("127.0.0.1", ["10.9.9.9, 10.1.2.3"], "10.9.9.9"),
        ("127.0.0.1", ["198.51.100.1, unknown"], None),
        ("127.0.0.1", ["198.51.100.1,"], None),
        ("127.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("127.0.0.1", ["[2001:db9::1]:4711"], "2001:db9::1"),
        ("::ffff:127.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("fe80::1%eth0", [], "fe80::1"),
        ("testclient", ["198.51.100.1"], None),
    ],
)
def test_the_right_most_address_that_is_not_trusted_counts(
    peer: str, forwarded: list[str], expected: str | None
) -> None:
    assert expected == seen((peer, 1), *forwarded)


@pytest.mark.parametrize("peer", [None, ("", 0)])
def test_peer_of_a_unix_socket_is_believed_only_when_told_so(peer: tuple[str, int] | None) -> None:
    assert seen(peer, "198.51.100.1") is None
    assert seen(peer, "198.51.100.1", trusted="unix") == "198.51.100.1"
    assert seen(peer, trusted="unix") is None
    assert seen(("203.0.113.9", 1), "198.51.100.1", trusted="unix") == "203.0.113.9"


_LINES = st.lists(st.text(st.characters(max_codepoint=255)) | st.ip_addresses().map(str), max_size=6)


@given(_LINES, st.ip_addresses())
def test_without_trust_no_header_is_ever_believed(lines: list[str], peer: object) -> None:
    headers = [
        (name, line.encode("latin-1")) for line in lines for name in (b"x-forwarded-for", b"forwarded")
    ]
    assert parse_address(str(peer)) == client_address((str(peer), 1), headers, NOBODY)


@given(_LINES, st.ip_addresses(v=4).filter(lambda address: not TRUSTED.has(address)))
def test_nothing_that_a_client_sends_hides_what_the_proxy_appends(lines: list[str], client: object) -> None:
    """Whatever the client's own headers say, in one line with the proxy's or before it."""
    for forwarded in ([*lines, str(client)], [", ".join([*lines, str(client)])]):
        assert str(client) == seen(("10.0.0.1", 1), *forwarded)


@given(st.text())
def test_any_text_is_an_address_or_none(text: str) -> None:
    address = parse_address(text)
    assert address is None or parse_address(str(address)) == address


def test_inside_a_network() -> None:
    assert is_inside("203.0.113.0/24", ip_address("203.0.113.7"))
    assert not is_inside("203.0.113.0/24", ip_address("203.0.114.7"))
    assert not is_inside("203.0.113.0/24", ip_address("2001:db8::1"))
    assert not is_inside("0.0.0.0/0", None)


@pytest.mark.parametrize("text", ["localhost", "10.0.0.1/8", "127.0.0.1 10.0.0.1", "10.0.0.0/33", "*"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_trusted_proxies(text)
