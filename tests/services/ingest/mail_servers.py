"""Small real mail servers over TLS: enough of IMAP4rev1 and POP3 for a client of either."""

from __future__ import annotations

import asyncio
import re
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.certificates import Authority

PASSWORD = "secret"
_UID = re.compile(r"(\d+):\*")


@asynccontextmanager
async def serving(protocol: str, authority: Authority, box: Sequence[bytes]) -> AsyncIterator[int]:
    """Serve a mailbox, whose messages may be added to; gives the port."""
    key, certificate = authority.issue("localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory() as folder:
        chain = Path(folder, "chain.pem")
        chain.write_bytes(key + certificate)
        context.load_cert_chain(chain)
    speak = _imap if protocol == "imap" else _pop3

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await speak(reader, writer, box)
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _imap(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, box: Sequence[bytes]
) -> None:
    writer.write(b"* OK IMAP4rev1 ready\r\n")
    while line := (await reader.readline()).decode().strip():
        tag, verb, *rest = line.split(" ")
        told = " ".join(rest)
        match verb.upper():
            case "CAPABILITY":
                writer.write(b"* CAPABILITY IMAP4rev1\r\n")
            case "LOGIN" if PASSWORD not in told:
                writer.write(f"{tag} NO no such user\r\n".encode())
                continue
            case "EXAMINE":
                writer.write(f"* {len(box)} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n".encode())
            case "UID" if rest[0].upper() == "SEARCH":
                start = _UID.search(told)
                assert start is not None
                found = [n for n in range(1, len(box) + 1) if n >= int(start[1])] or (
                    [len(box)] if box else []
                )
                writer.write(f"* SEARCH {' '.join(map(str, found))}\r\n".encode())
            case "UID" if "SIZE" in told:
                size = len(box[int(rest[1]) - 1])
                writer.write(f"* {rest[1]} FETCH (UID {rest[1]} RFC822.SIZE {size})\r\n".encode())
            case "UID":
                data = box[int(rest[1]) - 1]
                writer.write(
                    f"* {rest[1]} FETCH (UID {rest[1]} BODY[] {{{len(data)}}}\r\n".encode()
                )
                writer.write(data + b")\r\n")
            case "LOGOUT":
                writer.write(f"* BYE bye\r\n{tag} OK\r\n".encode())
                return
        writer.write(f"{tag} OK done\r\n".encode())


async def _pop3(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, box: Sequence[bytes]
) -> None:
    writer.write(b"+OK ready\r\n")
    answers: dict[str, Callable[[str], bytes]] = {
        "USER": lambda _: b"+OK\r\n",
        "PASS": lambda said: b"+OK\r\n" if said == PASSWORD else b"-ERR no such user\r\n",
        "UIDL": lambda _: (
            b"+OK\r\n"
            + b"".join(b"%d id%d\r\n" % (n, n) for n in range(1, len(box) + 1))
            + b".\r\n"
        ),
        "RETR": lambda said: (
            b"+OK\r\n"
            + b"\r\n".join(box[int(said) - 1].replace(b"\n.", b"\n..").splitlines())
            + b"\r\n.\r\n"
        ),
        "QUIT": lambda _: b"+OK bye\r\n",
    }
    while line := (await reader.readline()).decode().strip():
        verb, _, said = line.partition(" ")
        writer.write(answers[verb.upper()](said))
        if verb.upper() == "QUIT":
            return
