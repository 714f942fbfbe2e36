"""Storing, changing and removing memories over the contract, on both databases."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from plexus.memory.v1 import memory_pb2 as pb
from plexus.memory.v1 import memory_service_pb2 as memory
from plexus.memory.v1 import version_service_pb2 as version_pb

from services.runtime.context import acting_as
from services.runtime.errors import PlexusError
from tests.services.memory.conftest import Calls, agent, refused

ADDED, CHANGED = pb.STORE_OUTCOME_ADDED, pb.STORE_OUTCOME_CHANGED
MERGED, UNCHANGED = pb.STORE_OUTCOME_MERGED, pb.STORE_OUTCOME_UNCHANGED
INVOICE = {"subject": "invoice 4711"}


async def versions(calls: Calls, memory_id: str) -> list[str]:
    """What a memory said, the newest first; empty where it was removed."""
    found, token = [], ""
    while True:
        request = memory.ListMemoryVersionsRequest(
            memory_id=memory_id, page_size=2, page_token=token
        )
        page = await calls.memory.ListMemoryVersions(request)
        found += [each.memory.text for each in page.versions]
        token = page.next_page_token
        if not token:
            return found


async def test_what_is_stored_is_there_at_every_commit_that_has_it(calls: Calls) -> None:
    with acting_as(agent()):
        first = await calls.store("one", "two", message="begin")
        second = await calls.store("three")
        assert [each.outcome for each in first.results] == [ADDED, ADDED]
        assert list(second.commit.parent_ids) == [first.commit.commit_id]
        assert await calls.texts() == ["one", "three", "two"]
        assert await calls.texts(commit_id=first.commit.commit_id) == ["one", "two"]
        assert await calls.texts(time=first.commit.create_time) == ["one", "two"]
        assert await calls.texts(time=Timestamp(seconds=1)) == []
        with refused("NOT_FOUND"):
            await calls.texts(commit_id="cmt_none")
        one = await calls.get(first.results[0].memory_id)
        assert (one.version_id, one.text) == (first.results[0].version_id, "one")
        assert (one.space, one.person, one.confidence) == ("user/usr_1", "usr_1", 1.0)
        assert one.provenance[0].person == "usr_1"
        space = (await calls.version.GetSpace(version_pb.GetSpaceRequest())).space
        assert (space.memory_count, space.head_commit_id) == (3, second.commit.commit_id)


async def test_a_key_is_good_for_one_commit(calls: Calls) -> None:
    with acting_as(agent()):
        replies = await asyncio.gather(
            *(calls.store("one", idempotency_key="k", message="m") for _ in range(10))
        )
        assert all(reply == replies[0] for reply in replies)
        with refused("IDEMPOTENCY_KEY_REUSED"):
            await calls.store("two", idempotency_key="k", message="m")
        commits = await calls.version.ListCommits(version_pb.ListCommitsRequest())
        assert len(commits.commits) == 1


async def test_what_repeats_a_memory_is_merged_into_it(calls: Calls) -> None:
    with acting_as(agent()):
        source = {"provenance": [pb.Provenance(run_id="run_1")]}
        first = await calls.store("The door is blue.", record=source)
        memory_id = first.results[0].memory_id
        again = await calls.store("the DOOR is blue", "The door is blue!", record=source)
        assert [each.outcome for each in again.results] == [UNCHANGED, UNCHANGED]
        assert not again.HasField("commit")
        other = {"provenance": [pb.Provenance(message_id="msg_1")]}
        merged = await calls.store("The door is blue", record=other)
        assert (merged.results[0].outcome, merged.results[0].memory_id) == (MERGED, memory_id)
        assert merged.commit.changed == 1
        kept = await calls.get(memory_id)
        assert [each.WhichOneof("origin") for each in kept.provenance] == ["run_id", "message_id"]
        assert kept.text == "The door is blue."
        assert kept.strength > 0.7
        twice = await calls.store("The gate is red", "the gate is red")
        assert [each.outcome for each in twice.results] == [ADDED, UNCHANGED]


async def test_a_memory_grows_no_larger_than_one_may_be(calls: Calls) -> None:
    def some(first: int) -> dict[str, pb.AttributeValue]:
        return {f"n{first + n}": pb.AttributeValue(integer=n) for n in range(20)}

    with acting_as(agent()):
        first = await calls.store("The door is blue.", record={"attributes": some(0)})
        again = await calls.store("The door is blue.", record={"attributes": some(20)})
        assert again.results[0].outcome == ADDED
        with refused("INVALID_REQUEST"):
            await calls.update(first.results[0].memory_id, set_attributes=some(20))


async def test_numbers_are_never_merged_and_contradictions_are_said_both_ways(
    calls: Calls,
) -> None:
    with acting_as(agent()):
        first = await calls.store("The total of the invoice is 40 euros", record=INVOICE)
        second = await calls.store(
            "The total of the invoice is 50 euros",
            "The total of the invoice is 60 euros",
            record=INVOICE,
        )
        ids = [each.memory_id for each in (*first.results, *second.results)]
        assert [each.outcome for each in second.results] == [ADDED, ADDED]
        for number, result in enumerate(second.results, 1):
            assert set(result.contradicts) == set(ids) - {ids[number]}
        assert set((await calls.get(ids[0])).contradicts) == set(ids[1:])
        # At a commit where the others are not there, nothing says otherwise.
        assert not (await calls.get(ids[0], commit_id=first.commit.commit_id)).contradicts
        await calls.delete(ids[1])
        assert set((await calls.get(ids[0])).contradicts) == {ids[2]}
        # A new version that says the same again has nothing against it any more.
        await calls.update(ids[2], text="The total of the invoice is 40 euros in all")
        assert not (await calls.get(ids[0])).contradicts


async def test_a_record_may_be_a_new_version(calls: Calls) -> None:
    with acting_as(agent()):
        first = await calls.store("The door is blue")
        memory_id = first.results[0].memory_id
        changed = await calls.store("The door is green", record={"memory_id": memory_id})
        assert (changed.results[0].outcome, changed.results[0].memory_id) == (CHANGED, memory_id)
        with refused("NOT_FOUND"):
            await calls.store("x", record={"memory_id": "mem_" + "0" * 26})
        with refused("NOT_FOUND"):
            await calls.store("x", record={"memory_id": "no id"})
        assert await versions(calls, memory_id) == ["The door is green", "The door is blue"]


async def test_a_memory_is_changed_removed_and_keeps_its_versions(calls: Calls) -> None:
    with acting_as(agent()):
        first = await calls.store("The door is blue")
        memory_id = first.results[0].memory_id
        changed = await calls.update(
            memory_id,
            version_id=first.results[0].version_id,
            text="The door is green",
            set_attributes={"year": pb.AttributeValue(integer=2026)},
        )
        assert changed.memory.attributes["year"].integer == 2026
        assert changed.memory.create_time == (await calls.get(memory_id)).create_time
        with refused("STALE_ETAG"):
            await calls.update(memory_id, version_id=first.results[0].version_id, text="x")
        assert not (await calls.update(memory_id, text="The door is green")).HasField("commit")
        gone = await calls.update(memory_id, remove_attributes=["year", "none"])
        assert not gone.memory.attributes
        assert (await calls.delete(memory_id)).removed == 1
        with refused("NOT_FOUND"):
            await calls.get(memory_id)
        with refused("NOT_FOUND"):
            await calls.delete(memory_id)
        with refused("NOT_FOUND"):
            await calls.update(memory_id, text="x")
        assert await versions(calls, memory_id) == [
            "",
            "The door is green",
            "The door is green",
            "The door is blue",
        ]
        # It can be said again: that is another memory.
        assert (await calls.store("The door is green")).results[0].memory_id != memory_id


async def test_a_head_that_is_expected(calls: Calls) -> None:
    with acting_as(agent()):
        first = (await calls.store("one")).commit.commit_id
        second = (await calls.store("two", expected_head=first)).commit.commit_id
        with pytest.raises(PlexusError) as stale:
            await calls.store("three", expected_head=first)
        assert (stale.value.reason, stale.value.metadata["head"]) == ("STALE_HEAD", second)
        with refused("NOT_FOUND"):
            await calls.store("three", branch="none")


async def test_writers_wait_for_each_other_and_none_is_lost(calls: Calls) -> None:
    with acting_as(agent()):
        stored = await asyncio.gather(*(calls.store(f"fact number {n}") for n in range(20)))
        assert len(await calls.texts()) == 20
        listed = await calls.version.ListCommits(version_pb.ListCommitsRequest(page_size=7))
        assert len(listed.commits) == 7
        rest = await calls.version.ListCommits(
            version_pb.ListCommitsRequest(page_token=listed.next_page_token, page_size=100)
        )
        chain = [each.commit_id for each in (*listed.commits, *rest.commits)]
        assert set(chain) == {each.commit.commit_id for each in stored}


@pytest.mark.parametrize(
    "record",
    [
        {"text": "a\0b"},
        {"text": "   "},
        {"text": "x", "subject": "\0"},
        {"text": "x", "attributes": {"n": pb.AttributeValue(number=float("nan"))}},
        {"text": "x", "attributes": {"n": pb.AttributeValue(number=float("inf"))}},
        {"text": "x", "attributes": {"n": pb.AttributeValue(text="\0")}},
        {"text": "x", "valid_from": Timestamp(seconds=1 << 62)},
        {"text": "x", "valid_from": Timestamp(seconds=5), "valid_until": Timestamp(seconds=5)},
        {"text": "x", "provenance": [pb.Provenance(person="\0")]},
    ],
)
async def test_what_cannot_be_kept_is_refused_by_name(
    calls: Calls, record: dict[str, object]
) -> None:
    with acting_as(agent()):
        with pytest.raises(PlexusError) as bad:
            await calls.store(
                str(record["text"]), record={k: v for k, v in record.items() if k != "text"}
            )
        assert bad.value.reason == "INVALID_REQUEST"


async def test_every_kind_of_value_comes_back(calls: Calls) -> None:
    with acting_as(agent()):
        attributes = {
            "text": pb.AttributeValue(text="ä 語 '\" \\ \u2028"),
            "least": pb.AttributeValue(integer=-(1 << 63)),
            "number": pb.AttributeValue(number=1e-300),
            "truth": pb.AttributeValue(truth=False),
            "time": pb.AttributeValue(time=Timestamp(seconds=-62135596800)),
        }
        origin = pb.Provenance(
            document=pb.DocumentSpan(document_id="doc_1", start=2, end=9),
            time=Timestamp(seconds=7),
        )
        record = {"attributes": attributes, "provenance": [origin], "confidence": 0.25}
        stored = await calls.store("everything", record=record)
        found = await calls.get(stored.results[0].memory_id)
        assert dict(found.attributes) == attributes
        assert list(found.provenance) == [origin]
        assert found.confidence == 0.25


async def test_use_makes_stronger_and_what_is_not_there_is_passed_over(calls: Calls) -> None:
    with acting_as(agent()):
        stored = await calls.store("one", "two")
        used, other = (each.memory_id for each in stored.results)
        request = memory.ReinforceMemoriesRequest(memory_ids=[used, "mem_none", used])
        await calls.memory.ReinforceMemories(request)
        found = await calls.retrieve()
        assert [each.memory.memory_id for each in found.memories] == [used, other]
        assert found.memories[0].memory.strength == pytest.approx(0.75, abs=0.01)
        assert found.memories[1].memory.strength == pytest.approx(0.5, abs=0.01)
    with acting_as(agent("usr_2")):
        await calls.memory.ReinforceMemories(request)
    with acting_as(agent()):
        assert (await calls.get(used)).strength == pytest.approx(0.75, abs=0.01)
