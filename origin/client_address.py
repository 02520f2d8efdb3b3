"""Who the client is: the peer of the connection, or whom a trusted proxy says that it is.

Invariant: pure, and nobody's word counts but that of an address that the operator trusts. Of
`X-Forwarded-For` each trusted proxy has appended one address, so it is read from the right, and what stands
left of the first address that is not trusted is the client's own invention. `Forwarded` (RFC 7239) is never
read: with two headers, a proxy that sets one of them passes on the other as the client wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from contracts.errors import MalformedError

Address = IPv4Address | IPv6Address

UNIX = "unix"  # How settings name the peers of a Unix socket, which have no address.


class TrustedProxies(NamedTuple):
    """The peers that are believed: networks, and whoever can open the Unix socket."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    is_unix_trusted: bool = False

    def has(self, address: Address) -> bool:
        """Whether the address is a trusted proxy's."""
        return any(address in network for network in self.networks)


NOBODY = TrustedProxies()


def parse_trusted_proxies(text: str) -> TrustedProxies:
    """Networks or addresses separated by commas, and the word `unix`: `127.0.0.1, 10.0.0.0/8, unix`.

    Raises:
        MalformedError: an entry is none, or has host bits set.
    """
    entries = [entry for entry in map(str.strip, text.split(",")) if entry]
    networks = []
    for entry in entries:
        if entry == UNIX:
            continue
        try:
            networks.append(ip_network(entry))
        except ValueError:
            raise MalformedError(
                f"a trusted proxy is an address, a network such as 10.0.0.0/8, or {UNIX}; found {entry!r}"
            ) from None
    return TrustedProxies(tuple(networks), UNIX in entries)


def client_address(
    peer: tuple[str, int] | None, headers: Iterable[tuple[bytes, bytes]], trusted: TrustedProxies
) -> Address | None:
    """The address of the client, or None when nobody who is trusted says it.

    `peer` and `headers` are as ASGI gives them ("HTTP Connection Scope"): names in lower case; no peer, or
    one without a name, is that of a Unix socket.
    """
    name = peer[0] if peer else ""
    address = parse_address(name)
    if not (trusted.is_unix_trusted if not name else address is not None and trusted.has(address)):
        return address
    for entry in _forwarded_for(headers):
        address = parse_address(entry)
        if address is None or not trusted.has(address):
            return address  # The client; or something that cannot be read, and then nobody knows.
    return address  # Only trusted addresses: the left-most asked by itself.


def is_inside(network: str, address: Address | None) -> bool:
    """Whether an address lies in a network of a token's claims; no address lies in none."""
    return address is not None and address in _network(network)


def parse_address(text: str) -> Address | None:
    """An address with or without a port; None when it is none. IPv4 in IPv6 is IPv4 (RFC 4291, 2.5.5.2)."""
    host = text
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        if port and not port.startswith(":"):
            return None
    elif text.count(":") == 1:
        host = text.partition(":")[0]
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _forwarded_for(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[str]:
    """The entries of `X-Forwarded-For`, the last first; of several headers the last was appended last."""
    lines = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    joined = ",".join(lines)
    return (entry.strip(" \t") for entry in reversed(joined.split(","))) if lines else ()


@lru_cache(maxsize=256)
def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text)
