"""Files of every kind, made here."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from email.message import EmailMessage

import docx
import openpyxl

PAGE = """<html><head><title>Leave</title><script>steal()</script></head><body>
<nav><a href="/">Home</a></nav><article><h1>Leave of absence</h1>
<p>Everyone in the company has thirty days of leave in a year, and may take them when it suits.</p>
<h2>How to ask</h2><ul><li>Ask Grace first, in good time.</li><li>Then write it down.</li></ul>
<table><tr><th>Place</th><th>Days</th></tr><tr><td>Berlin</td><td>30</td></tr></table>
</article></body></html>"""


def pdf(pages: Sequence[str], *, title: str = "A report", streams: Sequence[bytes] = ()) -> bytes:
    """A PDF with a line of text on each page, or with streams as they are."""
    bodies = list(streams) or [f"BT /F1 12 Tf 72 700 Td ({page}) Tj ET".encode() for page in pages]
    count = len(bodies)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>"
        % (b" ".join(b"%d 0 R" % (5 + 2 * n) for n in range(count)), count),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Title (%s) >>" % title.encode(),
    ]
    for number, body in enumerate(bodies):
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % (6 + 2 * number)
        )
        filtered = b"" if body.startswith(b"BT") else b"/Filter /FlateDecode "
        objects.append(b"<< %s/Length %d >>\nstream\n%s\nendstream" % (filtered, len(body), body))
    out = io.BytesIO()
    out.write(b"%PDF-1.7\n")
    places = []
    for number, each in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, each))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.writelines(b"%010d 00000 n \n" % place for place in places)
    out.write(
        b"trailer\n<< /Size %d /Root 1 0 R /Info 4 0 R >>\nstartxref\n%d\n%%%%EOF"
        % (len(objects) + 1, start)
    )
    return out.getvalue()


def word() -> bytes:
    """A DOCX with headings, paragraphs and a table."""
    made = docx.Document()
    made.core_properties.title = "Handbook"
    made.add_heading("Leave", 1)
    made.add_paragraph("Everyone has thirty days.")
    table = made.add_table(rows=2, cols=2)
    for row, cells in enumerate((("Place", "Days"), ("Berlin", "30"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    made.add_heading("Illness", 1)
    made.add_paragraph("Call Grace.")
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def workbook() -> bytes:
    """An XLSX with two sheets."""
    book = openpyxl.Workbook()
    first = book.active
    assert first is not None
    first.title = "People"
    for row in (("Name", "Age"), ("Ada", 36), ("Grace", 85.5)):
        first.append(row)
    second = book.create_sheet("Places")
    second.append(("City", "Days"))
    second.append(("Berlin", 30))
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def mail(*attached: tuple[str, bytes], subject: str = "Leave", html: str = "") -> bytes:
    """An e-mail."""
    message = EmailMessage()
    message["From"], message["To"] = "ada@example.com", "grace@example.com"
    message["Subject"], message["Date"] = subject, "Tue, 01 Dec 2026 10:00:00 +0000"
    message.set_content("I take next week off.\n")
    if html:
        message.add_alternative(html, subtype="html")
    for name, data in attached:
        message.add_attachment(data, maintype="application", subtype="octet-stream", filename=name)
    return message.as_bytes()


def mail_in_mail(levels: int) -> bytes:
    """An e-mail attached to an e-mail, and so on."""
    inner = mail(subject="innermost")
    for level in range(levels):
        inner = mail((f"level{level}.eml", inner), subject=f"level {level}")
    return inner


def bomb(kind: str, size: int) -> bytes:
    """An office file whose main part is far larger than it looks."""
    out = io.BytesIO(word() if kind == "docx" else workbook())
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as archive:
        name = "word/extra.xml" if kind == "docx" else "xl/extra.xml"
        with archive.open(name, "w", force_zip64=True) as file:
            for _ in range(size // 1_000_000):
                file.write(b"0" * 1_000_000)
    return out.getvalue()


def with_part(whole: bytes, name: str, part: bytes) -> bytes:
    """An archive with one of its parts replaced."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w") as new:
        for each in old.namelist():
            new.writestr(each, part if each == name else old.read(each))
    return out.getvalue()
