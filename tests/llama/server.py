"""The server's process: `python -m tests.llama.server FOLDER` tells its address when ready."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.e2e.mesh import ROOT, free_port
from tests.llama import tiny

_READY_SECONDS = 30.0


@asynccontextmanager
async def llama_server(folder: Path) -> AsyncIterator[str]:
    """A running server: its base URL, as OpenAI's clients take it."""
    log = folder / "llama.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.llama.server", str(folder)),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=file,
        )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        async with asyncio.timeout(_READY_SECONDS):
            address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise RuntimeError(f"llama.cpp's server did not start:\n{log.read_text()[-2000:]}")
        yield f"{address}/v1"
    finally:
        process.stdin.close()  # it ends with its input
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def main(folder: Path) -> None:
    """Serve until the input ends."""
    import xllamacpp

    tiny.write(folder / "tiny.gguf")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(folder / "tiny.gguf")
    settings.port = free_port()
    settings.n_ctx = tiny.WINDOW
    settings.n_parallel = 2
    settings.cpuparams.n_threads = 1
    settings.warmup = False
    # What was computed before for a prompt's beginning can differ from it in the last digit.
    settings.cache_prompt = False
    settings.embedding = True
    settings.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(settings)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
