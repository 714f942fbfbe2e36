"""How a text is cut."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.ingest.domain.chunks import MAX_TOKENS, Chunker, clean, estimate, row_text
from services.ingest.domain.looks import CSV, HTML, MAIL, MARKDOWN, PDF, TEXT, UNKNOWN, looks_like
from services.ingest.domain.passages import Kind, Passage

Block = tuple[str, Any]
TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from(" .\n!?。a"), max_size=150)
BLOCKS = st.lists(
    st.one_of(
        st.tuples(st.just("heading"), st.tuples(TEXTS, st.integers(1, 6))),
        st.tuples(st.just("text"), TEXTS),
        st.tuples(st.just("code"), TEXTS),
        st.tuples(st.just("page"), st.integers(1, 9)),
        st.tuples(st.just("table"), st.lists(st.lists(TEXTS, min_size=1, max_size=3), min_size=1)),
    ),
    max_size=8,
)


def cut(blocks: list[Block]) -> tuple[list[Passage], str, set[str]]:
    """Passages of some blocks, the whole text as the contract has it, and headers of tables."""
    found: list[Passage] = []
    chunker = Chunker(found.append)
    text = ""
    headers: set[str] = set()
    for kind, value in blocks:
        match kind, value:
            case "heading", (str(said), int(level)):
                chunker.heading(said, level)
                title = " ".join(clean(said).split())
                text += f"{title}\n\n" if title else ""
            case "text", str(said):
                chunker.text(said)
                whole = clean(said).strip()
                text += f"{whole}\n\n" if whole else ""
            case "code", str(said):
                chunker.code(said)
                whole = clean(said).strip("\n")
                text += f"{whole}\n\n" if whole.strip() else ""
            case "page", int(number):
                chunker.page(number)
            case "table", [first, *rows]:
                chunker.table(first)
                told = [row for row in map(row_text, rows) if row]
                header = row_text(first)
                headers.add(header)
                for row in [header, *told] if told and header else told:
                    text += f"{row}\n"
                for row in rows:
                    chunker.row(row)
                chunker.end_table()
    chunker.end()
    assert chunker.length == len(text)
    return found, text, headers


@given(BLOCKS)
def test_passages_are_parts_of_the_text_in_order_and_leave_nothing_out(blocks: list[Block]) -> None:
    found, text, headers = cut(blocks)
    end = 0
    left = ""
    for each in found:
        assert end <= each.start < each.end
        said = text[each.start : each.end]
        if each.text != said:
            # The names of a table's columns go before its rows.
            assert each.kind is Kind.TABLE
            names, _, rest = each.text.partition("\n")
            assert rest == said
            assert any(header.startswith(names.rstrip("…")) for header in headers)
        assert estimate(said) <= MAX_TOKENS + 60
        left += text[end : each.start]
        end = each.end
    left += text[end:]
    above = " ".join(heading for each in found for heading in each.headings)
    for line in filter(str.strip, left.split("\n")):
        assert line.strip()[:300] in above


def test_sentences_stay_whole_and_neighbours_join() -> None:
    sentence = "This sentence has exactly nine words in it here. "
    found, _, _ = cut([("heading", ("A", 1)), ("text", sentence * 100), ("text", "Short.")])
    assert len(found) > 2
    assert all(each.text.startswith("This") for each in found)
    assert found[-1].text.endswith("Short.")
    assert {each.headings for each in found} == {("A",)}


def test_a_heading_with_nothing_below_it_is_a_passage() -> None:
    found, _, _ = cut(
        [("heading", ("A", 1)), ("heading", ("B", 2)), ("heading", ("C", 2)), ("text", "c")]
    )
    assert [(each.text, each.headings) for each in found] == [("B", ("A",)), ("c", ("A", "C"))]


def test_looks_go_before_what_is_said() -> None:
    assert looks_like(b"%PDF-1.4 x", "text/plain", "a.txt") == PDF
    assert looks_like(b"<!DOCTYPE html><html>", "text/plain") == HTML
    assert looks_like(b"Return-Path: <a@b>\nFrom: a@b\n\nhi") == MAIL
    assert looks_like(b"a,b\n1,2\n", "text/csv; charset=utf-8") == CSV
    assert looks_like(b"# A", "", "a.MD") == MARKDOWN
    assert looks_like(b"hello", "application/pdf", "a.pdf") == TEXT
    assert looks_like("hello".encode("utf-16-le")) == TEXT
    assert looks_like(bytes(range(256)) * 4, "text/plain", "a.txt") == UNKNOWN
