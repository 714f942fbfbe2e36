"""Documents over their contract."""

from __future__ import annotations

from tests.services.ingest.conftest import READY, Desk

HANDBOOK = """# Handbook

Ada wrote it.

## Leave

Everyone has thirty days of leave. Ask Grace.

| Place | Days |
| --- | --- |
| Berlin | 30 |
| Paris | 25 |
"""


async def test_a_document_becomes_passages(desk: Desk) -> None:
    with desk.by():
        found = await desk.brought(HANDBOOK, collection="hr")
        assert (found.state, found.title, found.revision) == (READY, "Handbook", 1)
        passages = await desk.passages(found.document_id)
        told = [(each.text, list(each.headings), each.kind) for each in passages]
        assert told == [
            ("Ada wrote it.", ["Handbook"], 1),
            ("Everyone has thirty days of leave. Ask Grace.", ["Handbook", "Leave"], 1),
            ("Place | Days\nBerlin | 30\nParis | 25", ["Handbook", "Leave"], 2),
        ]
        assert [each.place for each in passages] == [0, 1, 2]
        assert found.passage_count == 3
