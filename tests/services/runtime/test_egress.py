"""A tenant's address never leads into this installation's own network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx2
import pytest

from services.runtime.egress import Egress, GuardedTransport
from services.runtime.errors import InvalidRequest, Unavailable

OUTSIDE = "93.184.216.34"
INNER = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
    *("100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
    *("::1", "::", "fe80::1", "fc00::1", "ff02::1", "2001:db8::1"),
    # IPv4 within IPv6: mapped, translated, 6to4.
    *("::ffff:127.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::"),
]
# One number, octal, hexadecimal, parts left out.
ODDLY_WRITTEN = ["2130706433", "0177.0.0.1", "0x7f.1", "127.1"]


def resolving(*addresses: str) -> Egress:
    async def resolve(name: str, port: int) -> Sequence[str]:
        return addresses

    return Egress(resolve=resolve)


@pytest.mark.parametrize("host", [*INNER, *ODDLY_WRITTEN])
async def test_inner_addresses_are_refused(host: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await Egress().address(host, 443)
    assert caught.value.reason == "ADDRESS_REFUSED"
    assert caught.value.metadata == {"host": host}


@pytest.mark.parametrize("address", INNER)
async def test_names_that_mean_them_are_refused(address: str) -> None:
    with pytest.raises(InvalidRequest):
        await resolving(OUTSIDE, address).address("example.com", 443)


async def test_the_judged_address_is_given() -> None:
    assert await resolving(OUTSIDE).address("Example.COM.", 443) == OUTSIDE
    assert await Egress().address("8.8.8.8", 443) == "8.8.8.8"
    assert await Egress().address("[2606:4700::1111]", 443) == "2606:4700::1111"


@pytest.mark.parametrize(
    ("allowed", "host", "goes"),
    [
        ("models.local", "models.local", True),
        ("models.local", "other.models.local", False),
        ("*.models.local", "a.models.local", True),
        ("*.models.local", "models.local", False),
        ("10.0.0.0/8", "x.test", True),
        ("10.9.9.9", "x.test", True),
        ("192.168.0.0/16, 10.9.9.0/24", "x.test", True),
        ("192.168.0.0/16", "x.test", False),
    ],
)
async def test_what_the_operator_allows_is_called(allowed: str, host: str, goes: bool) -> None:
    async def resolve(name: str, port: int) -> Sequence[str]:
        return ["10.9.9.9"]

    egress = Egress(allowed, resolve)
    if goes:
        assert await egress.address(host, 80) == "10.9.9.9"
    else:
        with pytest.raises(InvalidRequest):
            await egress.address(host, 80)


async def test_a_name_that_is_not_found_is_unavailable() -> None:
    async def resolve(name: str, port: int) -> Sequence[str]:
        raise OSError

    with pytest.raises(Unavailable):
        await Egress(resolve=resolve).address("nowhere.test", 80)
    with pytest.raises(Unavailable):
        await resolving().address("nowhere.test", 80)


async def test_the_call_goes_to_the_address_that_was_judged() -> None:
    """A name that means another address from one moment to the next cannot get by."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])

    async def resolve(name: str, port: int) -> Sequence[str]:
        return next(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    seen: list[str] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    guarded = GuardedTransport(Egress("127.0.0.1", resolve), httpx2.AsyncHTTPTransport())
    async with server, httpx2.AsyncClient(transport=guarded) as client:
        assert (await client.get(f"http://models.test:{port}/v1")).status_code == 204
        with pytest.raises(InvalidRequest):
            await client.get(f"http://models.test:{port}/v1")
    assert len(seen) == 1
    assert f"host: models.test:{port}" in seen[0].lower()
