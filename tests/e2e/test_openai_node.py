"""OpenAI's own client for Node, unmodified, against a running mesh of each shape."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.clients import node
from tests.e2e.callers import Rest
from tests.e2e.conftest import sign_up
from tests.e2e.mesh import Mesh
from tests.e2e.test_openai import MODELS, provide
from tests.services.llm import scripted_openai as scripts
from tests.services.llm.scripted_openai import ScriptedOpenAi

_SCRIPT = Path(node.__file__).parent / "node" / "openai.mjs"


async def _answer(answer: scripts.Answer) -> None:
    """As it is asked."""
    said = str(answer.asked["messages"][-1]["content"])
    if said == "Weather?":
        await answer.begin()
        await answer.tool(0, "call_1", "weather", '{"city": ')
        await answer.tool(0, arguments='"Wien"}')
        await answer.chunk(finish="tool_calls")
        await answer.done()
    elif said == "Go on and on.":
        await scripts.hang(("Hello",))(answer)
    else:
        await scripts.good(pace=0.01)(answer)


async def test_a_program_for_node(mesh: Mesh, rest: Rest) -> None:
    async with ScriptedOpenAi() as upstream:
        upstream.script = _answer
        await sign_up(rest)
        await provide(rest, upstream)
        program = await node.start(
            str(_SCRIPT), f"{mesh.url}/v1", rest.token, "lab/tiny", "lab/vectors"
        )
        async with asyncio.timeout(60):
            out, err = await program.communicate()
        assert program.returncode == 0, err.decode()
        told: dict[str, Any] = dict(json.loads(line) for line in out.splitlines())
        await asyncio.wait_for(upstream.last.gone.wait(), 5)
    assert {f"lab/{each.name}" for each in MODELS} <= set(told["models"])
    assert told["whole"] == ["Hello, world.", 15]
    assert told["streamed"] == ["Hello, world.", 4]
    assert told["called"] == ["tool_calls", "weather", '{"city": "Wien"}']
    assert told["responses"] == [
        "Hello, world.",
        ["completed", "Hello, world.", True],
        "Hello?",
        ["response.completed"],
        404,
    ]
    assert told["vectors"] == [[3, 0], [5, 1]]
    assert told["unknown"] == ["NotFoundError", 404, "model_not_found", None]
    assert told["refused"] == ["BadRequestError", 400, "invalid_request", "n"]
    assert told["stranger"][:2] == ["AuthenticationError", 401]
    assert told["left"]
