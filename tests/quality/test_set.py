"""That the judged set is whole: enough of each kind, every quote in its place, nothing twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable

import pytest

from tests.quality import judged

DOCUMENTS = judged.documents()
QUESTIONS = judged.questions()
TEXTS = {path: judged.plain_text(path) for path in DOCUMENTS}


def test_there_are_enough_documents_of_each_kind() -> None:
    counts = Counter(path.suffix for path in DOCUMENTS)
    least = {".md": 130, ".txt": 60, ".html": 50, ".csv": 30, ".eml": 40}
    assert set(counts) == set(least), "a document of a kind that nobody reads"
    assert not {suffix: n for suffix, n in least.items() if counts[suffix] < n}


def test_there_are_enough_questions_of_each_kind() -> None:
    counts = Counter(question.kind for question in QUESTIONS)
    assert set(counts) == judged.KINDS
    assert len(QUESTIONS) >= 210
    assert counts["paraphrase"] >= 0.4 * len(QUESTIONS)
    assert counts["negative"] >= 15


def test_ids_and_questions_are_unique() -> None:
    assert _repeated(question.id for question in QUESTIONS) == []
    assert _repeated(question.question.casefold() for question in QUESTIONS) == []


def test_no_two_documents_are_identical() -> None:
    assert _repeated(" ".join(text.split()) for text in TEXTS.values()) == []


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_judgements_stand(question: judged.Question) -> None:
    assert question.kind in judged.KINDS
    assert (question.kind == "negative") == (not question.relevant)
    if question.relevant:
        assert max(judgement.grade for judgement in question.relevant) == 3, "nothing answers it"
    assert _repeated((one.document, one.quote) for one in question.relevant) == []
    for judgement in question.relevant:
        assert judgement.grade in {1, 2, 3}
        assert TEXTS[judgement.path].count(judgement.quote) == 1, judgement
        if judgement.path.suffix == ".csv":
            assert judgement.quote in TEXTS[judgement.path].splitlines()[1:], judgement


def test_tables_have_a_header_and_rows_of_one_width() -> None:
    for path in DOCUMENTS:
        if path.suffix == ".csv":
            header, *rows = judged.rows(path)
            assert 10 <= len(rows) <= 60, path
            assert {len(row) for row in rows} == {len(header)}, path


def test_mail_has_its_headers_and_some_has_attachments() -> None:
    mails = [path for path in DOCUMENTS if path.suffix == ".eml"]
    for path in mails:
        shown = TEXTS[path].split("\n\n", 1)[0]
        assert all(f"{name}: " in shown for name in ("From", "To", "Date", "Subject")), path
    attached = [path for path in mails if b"Content-Disposition: attachment" in path.read_bytes()]
    assert len(attached) >= 5


def test_markup_stays_out_of_the_plain_text() -> None:
    for path in DOCUMENTS:
        if path.suffix == ".html":
            assert not any(mark in TEXTS[path] for mark in ("</", "font-family", "window.")), path


def _repeated(things: Iterable[Hashable]) -> list[Hashable]:
    return [thing for thing, count in Counter(things).items() if count > 1]
