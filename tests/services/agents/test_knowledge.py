"""What is looked up for a run, and what its answer cites."""

from __future__ import annotations

from services.agents.convert import to_event
from services.agents.domain import Citation, Completed, Source
from services.agents.ports import Origin, Part, Prompt, Role
from services.runtime.errors import Unavailable
from tests.services.agents.conftest import Desk

SOURCE = Source(1, "Hours", "The shop opens at nine.", "doc_1", "psg_1", headings=("Shop", "Hours"))
CITED = Citation(SOURCE, (0, 5), (4, 8), "shop")


async def test_a_run_is_given_what_is_known_and_cites_it(desk: Desk) -> None:
    desk.knowledge.known = Prompt([Part(Role.USER, Origin.RETRIEVED, "[1] nine")], [SOURCE])
    desk.knowledge.cited = [CITED, CITED]
    run = await desk.ask("When?")
    events = await desk.events(run)
    happened = [event.happening for event in events]
    assert desk.models.asked == [desk.knowledge.known]
    assert happened[-4:-2] == [CITED, CITED]
    assert isinstance(happened[-1], Completed)
    assert desk.knowledge.asked == [("When?", 5_200)]
    # As another process reads them.
    assert [event.happening for event in await desk.runs.stored(run)] == happened
    sent = to_event(run.run_id, events[-4]).citation
    assert (sent.source.document_id, list(sent.source.headings)) == ("doc_1", ["Shop", "Hours"])
    assert (sent.cited_in.end, sent.span.start, sent.quote) == (5, 4, "shop")


async def test_a_run_that_can_cite_nothing_is_whole_all_the_same(desk: Desk) -> None:
    desk.knowledge.known = Prompt([Part(Role.USER, Origin.USER, "hi")], [SOURCE])
    desk.knowledge.cited = Unavailable("away")
    events = await desk.events(await desk.ask())
    assert isinstance(events[-1].happening, Completed)
    assert not [event for event in events if isinstance(event.happening, Citation)]
