"""Parsers: what each makes of a good file, and what becomes of bombs and garbage."""

from __future__ import annotations

import random
import resource
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.ingest.domain.documents import Reason, Unreadable
from services.ingest.service.parsers import Attached, Done, Found, Parsers, Task
from services.ingest.settings import IngestSettings
from tests.services.ingest import files

LOL = b'<!DOCTYPE x [<!ENTITY a0 "lol">' + b"".join(
    b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 12)
)


class Bench:
    """Reads files with real parsers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.parsers = Parsers(IngestSettings(), folder)
        self._count = 0

    async def read(self, data: bytes, name: str = "") -> list[Found]:
        """What is found in a file."""
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        (folder / "document").write_bytes(data)
        found: list[Found] = []

        async def take(each: Found) -> None:
            found.append(each)

        await self.parsers.read(Task(folder / "document", len(data), name, "", 0), take)
        return found

    async def texts(self, data: bytes, name: str = "") -> list[tuple[str, tuple[str, ...], int]]:
        """Its passages, each with its headings and page."""
        found = await self.read(data, name)
        passages = [each for some in found if isinstance(some, list) for each in some]
        return [(each.text, each.headings, each.page) for each in passages]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    found = Bench(tmp_path)
    yield found
    await found.parsers.close()


def done(found: list[Found]) -> Done:
    last = found[-1]
    assert isinstance(last, Done)
    return last


async def test_pages_of_a_pdf(bench: Bench) -> None:
    data = files.pdf(["The first page ends here.", "The second begins."])
    assert await bench.texts(data) == [
        ("The first page ends here.", (), 1),
        ("The second begins.", (), 2),
    ]
    last = done(await bench.read(data))
    assert (last.title, last.media_type, last.page_count) == ("A report", "application/pdf", 2)


async def test_a_word_document_in_its_order(bench: Bench) -> None:
    assert await bench.texts(files.word()) == [
        ("Everyone has thirty days.", ("Leave",), 0),
        ("Place | Days\nBerlin | 30", ("Leave",), 0),
        ("Call Grace.", ("Illness",), 0),
    ]
    assert done(await bench.read(files.word())).title == "Handbook"


async def test_sheets_of_a_workbook(bench: Bench) -> None:
    assert await bench.texts(files.workbook()) == [
        ("Name | Age\nAda | 36\nGrace | 85.5", ("People",), 1),
        ("City | Days\nBerlin | 30", ("Places",), 2),
    ]


async def test_a_page_without_what_is_around_it(bench: Bench) -> None:
    found = await bench.texts(files.PAGE.encode())
    whole = "\n".join(text for text, _, _ in found)
    assert "steal" not in whole
    assert "Place | Days\nBerlin | 30" in whole
    assert ("Leave of absence", "How to ask") in [headings for _, headings, _ in found]


async def test_values_with_any_separator(bench: Bench) -> None:
    for separator in (",", ";", "\t"):
        rows = (("name", "age"), ("Ada", "36"), ("Grace", "85"))
        data = "\n".join(separator.join(row) for row in rows).encode()
        assert await bench.texts(data, "a.csv") == [("name | age\nAda | 36\nGrace | 85", (), 0)]


async def test_the_columns_names_are_above_each_part_of_a_long_table(bench: Bench) -> None:
    rows = ["name;place"] + [f"person number {n};a place with a long name {n}" for n in range(200)]
    found = await bench.texts("\n".join(rows).encode(), "a.csv")
    assert len(found) > 5
    assert all(text.startswith("name | place\nperson") for text, _, _ in found)


async def test_mail_and_what_is_attached(bench: Bench) -> None:
    found = await bench.read(files.mail(("a.txt", b"Attached."), html=files.PAGE))
    attached = [each for each in found if isinstance(each, Attached)]
    assert [(each.file_name, each.path.read_bytes()) for each in attached] == [
        ("a.txt", b"Attached.")
    ]
    text = found[[isinstance(each, list) for each in found].index(True)]
    assert isinstance(text, list)
    assert "From: ada@example.com" in text[0].text
    assert done(found).title == "Leave"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "cp1251"])
async def test_text_in_its_encoding(bench: Bench, encoding: str) -> None:
    text = "Grüße aus Köln. Die Straße ist müde, die Füße auch."
    if encoding == "cp1251":
        text = "Каждому сотруднику положено тридцать дней отпуска в году, спросите Грейс."
    assert await bench.texts(text.encode(encoding)) == [(text, (), 0)]


BOMBS: dict[str, tuple[Callable[[], bytes], Reason | None]] = {
    "docx": (lambda: files.bomb("docx", 60_000_000), Reason.TOO_LARGE),
    "xlsx": (lambda: files.bomb("xlsx", 60_000_000), Reason.TOO_LARGE),
    "pdf stream": (
        lambda: files.pdf([], streams=[zlib.compress(b"0" * 200_000_000, 1)]),
        Reason.TOO_LARGE,
    ),
    "csv line": (lambda: b"a,b\n" + b"x" * 12_000_000, Reason.TOO_LARGE),
    "csv field": (lambda: b'a,b\n"' + b"x\n" * 1_000_000, Reason.TOO_LARGE),
    "html depth": (lambda: b"<html>" + b"<div>" * 1_000_000, Reason.TOO_LARGE),
    "html count": (lambda: b"<html>" + b"<p>a</p>" * 1_200_000, Reason.TOO_LARGE),
    "markdown depth": (lambda: b"# A\n" + b">" * 200_000 + b" a", None),
    "mail depth": (lambda: _nested(400), Reason.TOO_LARGE),
    "mail parts": (
        lambda: files.mail(*((f"{n}.txt", b"x") for n in range(120))),
        Reason.TOO_LARGE,
    ),
}


def _nested(levels: int) -> bytes:
    head = b"From: a@b.c\nMIME-Version: 1.0\n"
    parts = [
        b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (n, n) for n in range(levels)
    ]
    return head + b"".join(parts) + b"Content-Type: text/plain\n\nx\n"


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_ends_in_its_own_failure(bench: Bench, name: str) -> None:
    make, reason = BOMBS[name]
    data = make()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        await bench.read(data, {"csv": "a.csv", "mark": "a.md"}.get(name[:4].strip(), ""))
        found = None
    except Unreadable as error:
        found = error.reason
    assert found is reason or reason is None
    await bench.parsers.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # The processor's own time, which does not depend on what else this machine does.
    assert after.ru_utime - before.ru_utime < 2 + len(data) / 50_000 + 2
    assert await bench.texts(b"Still here.") == [("Still here.", (), 0)]


async def test_entities_are_not_multiplied(bench: Bench) -> None:
    for whole, part, root in (
        (files.word(), "word/document.xml", b"w:document"),
        (files.workbook(), "xl/worksheets/sheet1.xml", b"worksheet"),
        (files.workbook(), "xl/workbook.xml", b"workbook"),
        (files.word(), "docProps/core.xml", b"x"),
    ):
        bomb = LOL.replace(b"DOCTYPE x", b"DOCTYPE " + root) + b"]><%s>&a11;</%s>" % (root, root)
        try:
            found = await bench.texts(files.with_part(whole, part, bomb))
        except Unreadable as error:
            assert error.reason in (Reason.BROKEN, Reason.TOO_LARGE, Reason.NO_TEXT)
        else:
            assert "lollol" not in str(found)


async def test_no_entity_reaches_a_file(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the-secret")
    head = b'<?xml version="1.0"?><!DOCTYPE html [<!ENTITY s SYSTEM "file://%s">]>' % (
        str(secret).encode()
    )
    for data in (
        head + b"<html><body><p>Told: &s; and more words than that.</p></body></html>",
        files.with_part(
            files.word(),
            "word/document.xml",
            head.replace(b"html", b"w:document")
            + b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
            b"<w:body><w:p><w:r><w:t>Told: &s;</w:t></w:r></w:p></w:body></w:document>",
        ),
    ):
        try:
            found = await bench.texts(data)
        except Unreadable:
            continue
        assert "the-secret" not in str(found)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00\x01\x02\x03" * 100, Reason.UNKNOWN_KIND),
        (b"\x7fELF" + b"\0" * 100, Reason.UNKNOWN_KIND),
        (b"%PDF-1.7\nnothing else", Reason.BROKEN),
        (b"PK\x03\x04 nothing else", Reason.BROKEN),
        (b" \n\t\n ", Reason.NO_TEXT),
        (files.pdf([" "]), Reason.NO_TEXT),
    ],
)
async def test_what_cannot_be_read_says_why(bench: Bench, data: bytes, reason: Reason) -> None:
    with pytest.raises(Unreadable) as caught:
        await bench.read(data)
    assert caught.value.reason is reason


async def test_a_locked_pdf_says_so(bench: Bench) -> None:
    import io

    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(PdfReader(io.BytesIO(files.pdf(["Secret."]))))
    writer.encrypt("password", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    with pytest.raises(Unreadable) as caught:
        await bench.read(out.getvalue())
    assert caught.value.reason is Reason.LOCKED


SAMPLES = {
    "pdf": (files.pdf(["One page.", "Two pages."]), ""),
    "docx": (files.word(), ""),
    "xlsx": (files.workbook(), ""),
    "html": (files.PAGE.encode(), ""),
    "mail": (files.mail(("a.txt", b"Attached."), html=files.PAGE), ""),
    "csv": (b"name,age\nAda,36\n" * 20, "a.csv"),
    "markdown": (b"# A\n\n| a | b |\n| - | - |\n| 1 | 2 |\n\n```\ncode\n```\n- x\n" * 5, "a.md"),
}


@pytest.mark.parametrize("kind", SAMPLES)
async def test_garbage_is_read_or_refused(bench: Bench, kind: str) -> None:
    sample, name = SAMPLES[kind]
    rng = random.Random(kind)
    for _ in range(8):
        data = bytearray(sample)
        for _ in range(rng.choice((1, 10, 200))):
            at = rng.randrange(len(data))
            match rng.randrange(3):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randrange(1, 40)]
                case _:
                    data[at:at] = data[max(0, at - 20) : at]
            data = data or bytearray(b"x")
        try:
            found = await bench.read(bytes(data), name)
        except Unreadable as error:
            assert error.message
        else:
            assert isinstance(found[-1], Done)


async def test_a_parser_is_kept_for_the_next_and_not_after_a_failure(bench: Bench) -> None:
    await bench.read(b"One.")
    first = bench.parsers._idle[0]
    await bench.read(b"Two.")
    assert bench.parsers._idle == [first]
    with pytest.raises(Unreadable):
        await bench.read(b"%PDF-")
    assert bench.parsers._idle == []


async def test_a_parser_knows_no_secret_and_cannot_gain_rights(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEXUS_LLM_KEY", "secret")
    await bench.read(b"One.")
    process = bench.parsers._idle[0]._process
    folder = Path("/proc", str(process.pid))
    assert b"PLEXUS" not in (folder / "environ").read_bytes()
    assert "NoNewPrivs:\t1" in (folder / "status").read_text()
    assert "Max address space         1073741824" in (folder / "limits").read_text()
