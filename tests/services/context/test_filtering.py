"""Filters: every field and operator, on both backends, against the rules without an index."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.context.domain.conditions import holds, of_tenant
from services.context.filtering import parse
from services.context.index.backend import Backend, Point
from services.runtime.errors import InvalidRequest
from tests.services.context.backends import KINDS, opened
from tests.services.context.test_index import memory, passage

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
POINTS: dict[str, Point] = {
    "handbook": passage(
        1,
        "x",
        collection="handbook",
        uri="https://example.com/Guide.pdf",
        media_type="application/pdf",
        page=3,
        time=1_700_000_000_000_000,
        attributes={"year": "2024", "draft": "true", "a.b-c": "Some Words here", "zip": "01067"},
    ),
    "plain": passage(2, "x", attributes={"year": "2020", "draft": "false"}),
    "memory": memory(
        3,
        "x",
        subject="invoice 4711",
        person="usr_a",
        space="user/usr_a",
        kind="experience",
        attributes={
            "year": 2025,
            "draft": True,
            "ratio": 0.5,
            "due": datetime(2026, 3, 1, tzinfo=UTC),
            "large": 2**62 + 1,
        },
    ),
}
CASES = {
    "": "handbook plain memory",
    "kind = document": "handbook plain",
    "kind != document": "memory",
    "document_id = doc_2": "plain",
    'collection = "handbook"': "handbook",
    "collection != handbook": "plain memory",
    "collection:*": "handbook",
    "NOT collection:*": "plain memory",
    'uri = "https://example.com/Guide.pdf"': "handbook",
    "uri:guide": "handbook",
    "uri:guid": "",
    "media_type = application/pdf": "handbook",
    "page = 3": "handbook",
    "page > 2": "handbook",
    "page:*": "handbook",
    "page < 3": "plain",
    "page >= 0 page <= 3": "handbook plain",
    "space = user/usr_a": "memory",
    "memory_kind = experience": "memory",
    "subject:INVOICE": "memory",
    'subject = "invoice 4711"': "memory",
    "subject = invoice": "",
    "person = usr_a": "memory",
    "time >= 2023-11-14T22:13:20Z": "handbook",
    "time < 2023-11-14T22:13:20Z": "plain memory",
    "time = 2023-11-14T23:13:20+01:00": "handbook",
    "attributes.year >= 2024": "handbook memory",
    "attributes.year < 2024": "plain",
    "attributes.year = 2025": "memory",
    "attributes.year = 2025.0": "memory",
    'attributes.year = "2025.0"': "",
    "attributes.year != 2025": "handbook plain",
    "attributes.draft = true": "handbook memory",
    "NOT attributes.draft = true": "plain",
    "-attributes.draft = true": "plain",
    "attributes.draft = false": "plain",
    "attributes.ratio = 0.5": "memory",
    "attributes.ratio:*": "memory",
    "attributes.due > 2026-02-28T00:00:00Z": "memory",
    "attributes.due = 2026-03-01T01:00:00+01:00": "memory",
    "attributes.large = 4611686018427387905": "memory",
    "attributes.large = 4611686018427387904": "",
    "attributes.a.b-c:WORDS": "handbook",
    "attributes.zip = 01067": "handbook",
    "attributes.zip = '1067'": "",
    'kind = "document" AND (attributes.year >= 2024 OR NOT attributes.draft = true)': (
        "handbook plain"
    ),
    "kind = memory OR collection = handbook": "handbook memory",
    "kind = document AND collection = handbook OR page = 0": "handbook plain",
    "NOT (kind = memory OR collection = handbook)": "plain",
    "collection = \"it's\" OR collection = 'handbook'": "handbook",
}


@pytest.fixture(params=KINDS)
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    async with opened(request.param, tmp_path) as found:
        await found.create("a")
        await found.upsert("a", list(POINTS.values()))
        await found.upsert("a", [passage(1, "x", "ten_b", collection="handbook", page=3)])
        yield found


async def test_each_filter_finds_what_it_says(index: Backend) -> None:
    names = {point.entry_id: name for name, point in POINTS.items()}
    for text, expected in CASES.items():
        condition = parse(text)
        found = await index.scroll("a", of_tenant("ten_a", condition), 10)
        assert {names[each.entry_id] for each in found} == set(expected.split()), text
        without = {name for name, each in POINTS.items() if holds(condition, each.payload)}
        assert without == set(expected.split()), text


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("kind =", 7),
        ("kind document", 6),
        ("(kind = document", 17),
        ("kind = document)", 16),
        ("kind = document AND", 20),
        ("kind = other", 1),
        ("page = many", 1),
        ("time > yesterday", 1),
        ("page = document AND colour = red", 1),
        ("page = 1 AND colour = red", 14),
        ("collection > a", 1),
        ("collection = *", 1),
        ("attributes.x > red", 1),
        ("attributes. = 1", 1),
        ("(" * 21 + "page = 1" + ")" * 21, 1),
        (" OR ".join(["page = 1"] * 51), 1),
        ('kind = "document', 8),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text: str, place: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(text)
    (violation,) = caught.value.violations
    assert violation.field == "filter"
    assert f"at character {place}:" in violation.description


@given(st.text("kind=document()ANDORT \"':*<>-.1x\\", max_size=60) | st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        holds(parse(text), {})
    except InvalidRequest as refused:
        assert refused.violations
