"""Where this installation calls on a tenant's word: nothing of its own network.

A tenant's address is resolved here, once for each call, every address found is judged, and the call
goes to the one that was judged: what a name means a moment later does not matter. A name that
means an inner and an outer address is refused whole. What the operator allows is not judged.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import httpx2

from services.runtime.errors import InvalidRequest, Unavailable

_RESOLVE_SECONDS = 5.0
# Their last 32 bits are an IPv4 address to which a translator on the way sends.
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
_Ip: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]


class Egress:
    """Judges addresses."""

    def __init__(self, allowed: str = "", resolve: Resolve | None = None) -> None:
        """Read what is allowed.

        Args:
            allowed: Hosts with commas between them: a name, `*.` and the end of names, an address,
                or a network such as `10.0.0.0/8`.
            resolve: Finds the addresses of a name; left out, the system's resolver.

        Raises:
            ValueError: A network is none.
        """
        self._names: set[str] = set()
        self._ends: list[str] = []
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._resolve = resolve or _resolve
        for entry in filter(None, (each.strip().lower() for each in allowed.split(","))):
            if entry.startswith("*."):
                self._ends.append(entry[1:])
            elif "/" in entry or _as_ip(entry) is not None:
                self._networks.append(ipaddress.ip_network(entry))
            else:
                self._names.add(entry)

    async def address(self, host: str, port: int) -> str:
        """The address to call for a host.

        Raises:
            InvalidRequest: ADDRESS_REFUSED: it is this installation's own network's.
            Unavailable: The name cannot be resolved now.
        """
        name = host.lower().strip("[]").rstrip(".")
        literal = _as_ip(name)
        found = [str(literal)] if literal is not None else await self._found(name, port)
        if name not in self._names and not name.endswith(tuple(self._ends)):
            for each in found:
                if not self._may(ipaddress.ip_address(each)):
                    raise refused(host)
        return found[0]

    async def _found(self, name: str, port: int) -> list[str]:
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await self._resolve(name, port)
        except (OSError, UnicodeError) as error:  # TimeoutError is one of the first
            raise Unavailable(f"The host {name!r} cannot be found.") from error
        if not found:
            raise Unavailable(f"The host {name!r} has no address.")
        # A zone such as `%eth0` belongs to this machine's own links.
        return [each.partition("%")[0] for each in found]

    def _may(self, address: _Ip) -> bool:
        if any(address in network for network in self._networks):
            return True
        inner = _within(address)
        return _is_outside(address) and (inner is None or _is_outside(inner))


def refused(host: str) -> InvalidRequest:
    """The error for an address that is not called."""
    return InvalidRequest(
        f"This installation does not call {host!r}: it belongs to an inner network. Its operator "
        "may allow it with PLEXUS_EGRESS_ALLOW.",
        reason="ADDRESS_REFUSED",
        metadata={"host": host[:200]},
    )


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Sends each request to an address that was judged, whatever the name means by then."""

    def __init__(self, egress: Egress, inner: httpx2.AsyncBaseTransport) -> None:
        self._egress = egress
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See httpx.

        Raises:
            InvalidRequest: The address is not called.
            Unavailable: The host cannot be found.
        """
        host = request.url.host
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        address = await self._egress.address(host, port)
        # The certificate is still the name's, and so is the Host header, which is set already.
        request.extensions = {**request.extensions, "sni_hostname": host}
        request.url = request.url.copy_with(host=address)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def _as_ip(text: str) -> _Ip | None:
    """An address written out, also in the odd forms of IPv4 that the system's resolver knows."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(text))
    except (OSError, UnicodeError):
        return None


def _within(address: _Ip) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


def _is_outside(address: _Ip) -> bool:
    return address.is_global and not address.is_multicast


async def _resolve(name: str, port: int) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]
