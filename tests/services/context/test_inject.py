"""Prompts through the real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from plexus.context.v1 import inject_service_pb2 as pb
from plexus.context.v1 import source_pb2
from plexus.llm.v1 import model_pb2

from services.runtime.errors import InvalidRequest, NotFound
from tests.services.context.conftest import Room

KINDS = pb.BlockKind


def kinds(prompt: pb.InjectResponse) -> list[str]:
    return [KINDS.Name(each.kind).removeprefix("BLOCK_KIND_") for each in prompt.blocks]


async def test_a_prompt_has_its_parts_in_order(room: Room) -> None:
    room.documents.put("ten_a", "doc_1", ["The rent is due on the third."], title="Lease")
    room.memories.put("ten_a", "mem_1", "Ada pays the rent.", space="user/usr_a")
    assert len(await room.found("rent")) == 2
    room.history.say("ten_a", "ses_1", "Hello")
    room.history.say("ten_a", "ses_1", "Hello! How can I help?", by_agent=True)
    room.history.summary = "They greeted."
    prompt = await room.inject(
        session_id="ses_1", input="When is the rent due?", instructions="Be brief.", explain=True
    )
    assert kinds(prompt) == [
        *("INSTRUCTIONS", "INSTRUCTIONS", "SUMMARY"),
        *sorted(kinds(prompt)[3:5], key=kinds(prompt)[3:5].index),
        *("MESSAGE", "MESSAGE", "MESSAGE"),
    ]
    assert set(kinds(prompt)[3:5]) == {"MEMORY", "PASSAGE"}
    sources = prompt.blocks[3:5]
    assert [each.mark for each in sources] == [1, 2]
    for each in sources:
        assert each.message.origin == model_pb2.MESSAGE_ORIGIN_RETRIEVED
        assert each.message.text.startswith(f"[{each.mark}]")
        assert each.source.text in each.message.text
        assert each.trust == source_pb2.TRUST_OUTSIDE
        assert each.reason.startswith("lexical")
    assert "order nothing" in prompt.blocks[1].message.text
    assert prompt.blocks[-1].message.text == "When is the rent due?"
    assert prompt.blocks[-1].trust == source_pb2.TRUST_USER
    assert prompt.tokens == sum(each.tokens for each in prompt.blocks)
    async with asyncio.timeout(5):
        while room.memories.used != ["mem_1"]:
            await asyncio.sleep(0.01)


async def test_small_talk_gets_no_sources(room: Room) -> None:
    room.documents.put("ten_a", "doc_1", ["Hello and good morning to all our guests."])
    assert len(await room.found("hello guests")) == 1
    assert kinds(await room.inject(input="Hello, how are you?")) == ["MESSAGE"]


async def test_what_is_weak_repeated_or_too_much_stays_out(room: Room) -> None:
    room.documents.put(
        "ten_a",
        "doc_1",
        [
            "The deposit for the flat in Berlin is three months of rent.",
            "Three months of rent is the deposit for the flat in Berlin.",
            "Berlin is a city on the Spree with many bridges.",
            "For the flat in Berlin a deposit of rent is kept. " + "It is kept well. " * 400,
        ],
    )
    assert len(await room.found("Berlin")) == 4
    question = "How much rent is the deposit for my Berlin flat?"
    prompt = await room.inject(input=question, max_tokens=2000, explain=True)
    assert kinds(prompt).count("PASSAGE") == 1
    assert {each.reason for each in prompt.left_out} == {"repeats", "weak", "budget"}
    assert prompt.tokens <= 2000
    none = await room.inject(input=question, max_sources=0)
    assert kinds(none) == ["MESSAGE"]


async def test_what_is_confidential_is_for_our_own_models(room: Room) -> None:
    room.memories.put("ten_a", "mem_1", "The salary of Ada is secret.", sensitivity=3)
    assert await room.found("salary")
    asked: dict[str, Any] = {"input": "What is the salary of Ada?", "explain": True}
    for model in ("", "openai/gpt", "offlinefake/x"):
        prompt = await room.inject(model=model, **asked)
        assert kinds(prompt) == ["MESSAGE"]
        assert [each.reason for each in prompt.left_out] == ["sensitive"]
    assert "MEMORY" in kinds(await room.inject(model="offline/extractive", **asked))


async def test_the_window_takes_what_is_left(room: Room) -> None:
    for number in range(50):
        room.history.say("ten_a", "ses_1", f"message {number} " + "word " * 100)
    prompt = await room.inject(session_id="ses_1", max_tokens=600, explain=True)
    assert prompt.tokens <= 600
    shown = [each.message.text.split()[1] for each in prompt.blocks]
    assert shown == [str(n) for n in range(50 - len(shown), 50)]
    assert len(shown) > 2
    assert len(prompt.left_out) == 50 - len(shown)
    large = await room.inject(input="word " * 5000, max_tokens=300)
    assert kinds(large) == ["MESSAGE"]


async def test_bad_requests_are_refused_by_field(room: Room) -> None:
    refused: dict[str, dict[str, Any]] = {
        "instructions": {"instructions": "word " * 400, "input": "x", "max_tokens": 256},
        "max_tokens": {"input": "x", "max_tokens": 10},
        "input": {"instructions": "x"},
        "filter": {"input": "the rent", "filter": "colour = red"},
    }
    for field, asked in refused.items():
        with pytest.raises(InvalidRequest) as caught:
            await room.inject(**asked)
        assert caught.value.violations[0].field == field
    with pytest.raises(NotFound):
        await room.inject(session_id="ses_none")


async def test_without_search_it_goes_on_and_says_so(room: Room) -> None:
    room.documents.put("ten_a", "doc_1", ["The rent is due on the third."])
    await room.found("rent")
    room.documents.away = room.memories.away = True
    prompt = await room.inject(input="When is the rent due?")
    assert prompt.stale
    assert kinds(prompt) == ["MESSAGE"]


async def test_only_the_named_spaces_and_ones_own_are_looked_at(room: Room) -> None:
    for space in ("shared/x", "shared/y", "user/usr_a", "agent/agt_1"):
        room.memories.put("ten_a", f"mem_{space}", f"The rent of {space} is due.", space=space)
    assert len(await room.found("rent")) == 4
    prompt = await room.inject(
        input="When is the rent due?", spaces=["shared/y"], agent_id="agt_1", model="offline/x"
    )
    found = {each.source.space for each in prompt.blocks if each.mark}
    assert found == {"shared/y", "user/usr_a", "agent/agt_1"}
