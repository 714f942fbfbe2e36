"""Mailboxes by IMAP and POP3, of the standard library, in threads.

The connection goes to an address that was judged, and the certificate is the name's. Messages stay
where they are. What a server sends is bounded, whatever it says of its size.
"""

from __future__ import annotations

import asyncio
import imaplib
import json
import poplib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from services.ingest.domain.sources import Mailbox, Protocol
from services.ingest.service.places.things import Cursor, LookFailed, Seen, Thing
from services.runtime.egress import Egress
from services.runtime.errors import PlexusError

_T = TypeVar("_T")
_SECONDS = 30.0
_MAX_MESSAGE = 60_000_000
_MAX_AT_ONCE = 500
_MAX_LISTED = 1_000_000
_UID = re.compile(rb"\bUID (\d+)")
_SIZE = re.compile(rb"\bRFC822\.SIZE (\d+)")


class Mailboxes:
    """Looks at mailboxes."""

    def __init__(self, egress: Egress, authority: Path | None) -> None:
        """Prepare.

        Args:
            egress: Judges their addresses.
            authority: Certificates of an authority that is trusted besides the system's.
        """
        self._egress = egress
        self._authority = authority

    async def look(self, place: Mailbox, password: str, cursor: str) -> AsyncIterator[Seen]:
        """The messages that are new since a cursor, some hundreds at most.

        Raises:
            LookFailed: The server does not answer, or refuses.
        """
        try:
            address = await self._egress.address(place.host, place.port_or_usual)
        except PlexusError as error:
            raise LookFailed(error.message) from error
        look = _imap if place.protocol == Protocol.IMAP else _pop3
        async for each in look(place, address, self._trust(), password, cursor):
            yield each

    def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._authority is not None:
            context.load_verify_locations(self._authority)
        return context


async def _in_thread(work: Callable[..., _T], *arguments: Any) -> _T:
    """What a server is asked.

    Raises:
        LookFailed: It does not answer as it should.
    """
    try:
        return await asyncio.to_thread(work, *arguments)
    except ssl.SSLCertVerificationError as error:
        raise LookFailed(
            f"The server's certificate is not its own: {error.verify_message}"
        ) from error
    except (imaplib.IMAP4.error, poplib.error_proto, OSError, EOFError, ValueError) as error:
        told = str(error).replace("\0", "")[:300] or type(error).__name__
        raise LookFailed(f"The mail server: {told}") from error


def _connected(
    place: Mailbox, address: str, trust: ssl.SSLContext, timeout: float | None
) -> socket.socket:
    plain = socket.create_connection((address, place.port_or_usual), timeout or _SECONDS)
    if place.starttls:
        return plain
    try:
        return trust.wrap_socket(plain, server_hostname=place.host)
    except BaseException:
        plain.close()
        raise


class _Imap(imaplib.IMAP4):
    def __init__(self, place: Mailbox, address: str, trust: ssl.SSLContext) -> None:
        self._connect_to = (place, address, trust)
        super().__init__(place.host, place.port_or_usual, timeout=_SECONDS)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return _connected(*self._connect_to, timeout)

    def read(self, size: int) -> bytes:
        """As many bytes as the server says; not more than a message may have."""
        if size > _MAX_MESSAGE:
            raise self.abort("it sends more than a message may have")
        return super().read(size)


def _open_imap(
    place: Mailbox, address: str, trust: ssl.SSLContext, password: str
) -> tuple[_Imap, int]:
    """A connection that is logged in and has the folder, and the folder's UIDVALIDITY."""
    server = _Imap(place, address, trust)
    try:
        if place.starttls:
            server.starttls(trust)
        server.login(place.user, password)
        folder = place.folder or "INBOX"
        quoted = '"' + folder.replace("\\", "\\\\").replace('"', '\\"') + '"'
        kind, _ = server.select(quoted, readonly=True)
        if kind != "OK":
            raise server.error(f"there is no folder {folder}")
        _, validity = server.response("UIDVALIDITY")
        return server, int((validity or [b"0"])[0] or 0)
    except BaseException:
        server.shutdown()
        raise


def _new_uids(server: _Imap, after: int) -> list[int]:
    kind, told = server.uid("SEARCH", f"UID {after + 1}:*")
    if kind != "OK":
        raise server.error("it does not search")
    # `*` is the last message there is, also where it is an old one.
    found = {int(each) for each in (told[0] or b"").split()}
    return sorted(each for each in found if each > after)[:_MAX_AT_ONCE]


def _message(server: _Imap, uid: int) -> bytes | None:
    """A message; None where it is gone or too large."""
    _, told = server.uid("FETCH", str(uid), "(UID RFC822.SIZE)")
    first = told[0] if told else None
    size = _SIZE.search(first) if isinstance(first, bytes) else None
    if size is None or int(size[1]) > _MAX_MESSAGE:
        return None
    _, told = server.uid("FETCH", str(uid), "(UID BODY.PEEK[])")
    for each in told:
        if isinstance(each, tuple) and _UID.search(each[0]) is not None:
            return bytes(each[1])
    return next((bytes(each[1]) for each in told if isinstance(each, tuple)), None)


async def _imap(
    place: Mailbox, address: str, trust: ssl.SSLContext, password: str, cursor: str
) -> AsyncIterator[Seen]:
    known = json.loads(cursor) if cursor else {"validity": 0, "uid": 0}
    server, validity = await _in_thread(_open_imap, place, address, trust, password)
    try:
        after = known["uid"] if known["validity"] == validity else 0
        for uid in await _in_thread(_new_uids, server, after):
            data = await _in_thread(_message, server, uid)
            if data:
                name = f"{validity}.{uid}"
                folder = quote(place.folder or "INBOX", safe="")
                uri = f"imap://{quote(place.user, safe='')}@{place.host}/{folder}/{name}"
                yield _thing(name, uri, data)
            yield Cursor(json.dumps({"validity": validity, "uid": uid}))
    finally:
        with suppress(imaplib.IMAP4.error, OSError):
            await asyncio.to_thread(server.logout)


class _Pop3(poplib.POP3):
    def __init__(self, place: Mailbox, address: str, trust: ssl.SSLContext) -> None:
        self._connect_to = (place, address, trust)
        self._received = 0
        super().__init__(place.host, place.port_or_usual, timeout=_SECONDS)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return _connected(*self._connect_to, timeout)

    def _putline(self, line: bytes) -> None:
        self._received = 0
        super()._putline(line)  # type: ignore[misc]

    def _getline(self) -> tuple[bytes, int]:
        line, octets = super()._getline()  # type: ignore[misc]
        self._received += octets
        if self._received > _MAX_MESSAGE:
            raise poplib.error_proto("it sends more than a message may have")
        return line, octets


def _open_pop3(
    place: Mailbox, address: str, trust: ssl.SSLContext, password: str
) -> tuple[_Pop3, list[tuple[int, str]]]:
    """A connection that is logged in, and the numbers and names of its messages."""
    server = _Pop3(place, address, trust)
    try:
        if place.starttls:
            server.stls(trust)
        server.user(place.user)
        server.pass_(password)
        _, lines, _ = server.uidl()
        found = [line.split(maxsplit=1) for line in lines[:_MAX_LISTED]]
        return server, [(int(each[0]), each[1].decode("ascii", "replace")) for each in found]
    except BaseException:
        server.close()
        raise


async def _pop3(
    place: Mailbox, address: str, trust: ssl.SSLContext, password: str, cursor: str
) -> AsyncIterator[Seen]:
    server, listed = await _in_thread(_open_pop3, place, address, trust, password)
    try:
        for number, name in listed:
            uri = f"pop://{quote(place.user, safe='')}@{place.host}/{quote(name, safe='')}"
            yield Thing(name, name, uri, "", "", "message/rfc822", _retrieving(server, number))
    finally:
        with suppress(poplib.error_proto, OSError):
            await asyncio.to_thread(server.quit)


def _retrieving(server: _Pop3, number: int) -> Callable[[], AsyncIterator[bytes]]:
    async def pieces() -> AsyncIterator[bytes]:
        _, lines, _ = await _in_thread(server.retr, number)
        yield b"\r\n".join(lines) + b"\r\n"

    return pieces


def _thing(name: str, uri: str, data: bytes) -> Thing:
    async def pieces() -> AsyncIterator[bytes]:
        yield data

    return Thing(name, name, uri, "", "", "message/rfc822", pieces)
