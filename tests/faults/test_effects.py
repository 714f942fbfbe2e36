"""A key has one effect, whoever repeats it, how often, at once, and through which replica."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.callers import Grpc
from tests.e2e.conftest import sign_up
from tests.faults.effects import Key, crowd, findings, rush_all
from tests.faults.suite import FULL, Suite, running, sized
from tests.faults.world import FaultyMesh
from tests.services.llm.scripted_openai import ScriptedOpenAi, good

_KEYS = sized(20, 1000)
_CALLERS = 100
_RIVALS = 10
_AT_ONCE = 4
_SHAPES = {"embedded": {}, "mesh": {"replicas": "agents:2"}}


async def found(
    suite: Suite, folder: Path, *defects: str, shape: str, keys: int, callers: int = _CALLERS
) -> list[str]:
    """Rush at so many keys; what was wrong."""
    every = [
        # Every other key is wanted for something else by some, at the same moment.
        Key(f"{suite.seed}-{number}", callers, _RIVALS if number % 2 else 0)
        for number in range(keys)
    ]
    async with ScriptedOpenAi() as model:
        model.script = good(pace=0.005)
        settings = {"llm_url": model.url, "llm_model": "scripted", **_SHAPES[shape]}
        mesh = FaultyMesh(folder, *defects, shape=shape, **settings)
        await mesh.start()
        caller = Grpc(mesh.url)
        try:
            await sign_up(caller)
            async with crowd(mesh, caller.token) as many:
                await rush_all(suite, many, every, _AT_ONCE)
            wrong = await findings(caller, mesh, model, every)
        finally:
            await caller.close()
            await mesh.kill()
    calls = sum(len(key.told) for key in every)
    rivals_won = sum(key.won == key.other for key in every)
    suite.say(f"{shape}: {keys} keys, {calls} calls, rivals won {rivals_won}, wrong: {len(wrong)}")
    for each in wrong[:20]:
        suite.note("wrong", text=each)
    return wrong


@pytest.mark.timeout(1800 if FULL else 120)
@pytest.mark.parametrize("shape", _SHAPES)
async def test_one_key_is_one_effect(tmp_path: Path, shape: str) -> None:
    with running(f"effects-{shape}") as suite:
        assert await found(suite, tmp_path / "data", shape=shape, keys=_KEYS) == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("defect", "shape", "kinds"),
    [
        ("keys_are_forgotten", "embedded", {"effects", "paid", "replies", "mismatch"}),
        ("payloads_are_not_compared", "embedded", {"mismatch"}),
        ("repeats_get_the_rest", "embedded", {"replies"}),
        ("keys_of_each_process", "mesh", {"effects", "paid", "replies"}),
    ],
)
async def test_every_planted_defect_shows(
    tmp_path: Path, defect: str, shape: str, kinds: set[str]
) -> None:
    with running(f"effects-{defect}") as suite:
        wrong = await found(suite, tmp_path / "data", defect, shape=shape, keys=2, callers=20)
        assert kinds <= {each.partition(":")[0] for each in wrong}
