"""The embedded shape: Envoy and one Python process with every module, from one command."""

from __future__ import annotations

# isort: off
# Before grpc: reading the settings also tells grpc how to start.
from services.runtime.settings import Settings, unix_target
# isort: on

import asyncio
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import grpc
from google.protobuf.json_format import MessageToDict
from plexus.identity.v1 import identity_service_pb2
from plexus.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from pydantic import ValidationError

from gateway.config import Bounds, Endpoint, GatewayConfig
from gateway.errors import GatewayError
from gateway.process import GatewayProcess, check_port
from services.app import MODULES, serve
from services.runtime import log
from services.runtime.contract import ContractError
from services.runtime.credentials import AUDIENCE, ISSUER
from services.runtime.crypto import MasterKeyError
from services.runtime.db import DatabaseDamaged, check_file
from services.runtime.errors import PlexusError
from services.runtime.migrations import SchemaTooNew
from services.runtime.tasks import Tasks

_logger = log.get(__name__)
_DESCRIPTORS = Path(__file__).resolve().parents[1] / "generated" / "plexus.binpb"
_STARTED = "started"
_READY_SECONDS = 30.0
_KEYS_SECONDS = 2.0
_LOGS_SECONDS = 60.0
_GATEWAY_GRACE = 2.0


class AlreadyRunning(Exception):
    """Another process serves this data directory; the text says where."""


def main(settings: Settings | None = None) -> int:
    """Serve until told to stop; returns the exit status."""
    try:
        return _run(settings or Settings())
    except AlreadyRunning as known:
        _say(str(known))
        return 0
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False):
            name = "_".join(("PLEXUS", *map(str, each["loc"]))).upper()
            _say(f"{name}: {each['msg']}. Change it and start again.")
    except (
        GatewayError,
        DatabaseDamaged,
        SchemaTooNew,
        MasterKeyError,
        ContractError,
        PlexusError,
    ) as error:
        _say(f"Plexus did not start: {error}")
    except OSError as error:
        _say(f"Plexus did not start: {error.strerror or error} ({error.filename or 'no file'})")
    return 1


def _run(settings: Settings) -> int:
    for folder in (settings.directory, settings.run_dir):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    with _sole_owner(settings):
        check_file(settings.database)
        if _holds_data(settings) and not settings.database.stat().st_size:
            raise DatabaseDamaged(
                f"the database {settings.database} is empty though it held data: put a backup in "
                "its place, or move it away to start empty"
            )
        if settings.database.exists() and not settings.master_key.exists():
            raise MasterKeyError(
                f"{settings.master_key} is missing, and without it the secrets in the database "
                "cannot be opened: put its backup there"
            )
        log.configure(settings.log_level, settings.directory / "logs" / "plexus.log")
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    return 0


def _holds_data(settings: Settings) -> bool:
    """Whether an earlier start came to its end with the database that is there."""
    return settings.database.exists() and (settings.directory / _STARTED).exists()


@contextmanager
def _sole_owner(settings: Settings) -> Iterator[None]:
    """Hold the data directory: two processes on one database would each take up all runs."""
    path = settings.directory / "lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyRunning(_already(file.read())) from None
        file.truncate(0)
        owner = {"pid": os.getpid(), "url": f"http://{settings.host}:{settings.port}"}
        file.write(json.dumps(owner))
        file.flush()
        yield


def _already(text: str) -> str:
    try:
        owner = json.loads(text)
        return (
            f"Plexus already runs at {owner['url']} (process {owner['pid']}).\n"
            f"Stop it with Ctrl-C where it runs, or with: kill {owner['pid']}"
        )
    except (ValueError, KeyError):
        return "Plexus is just starting in another terminal. Wait a moment and look there."


async def _serve(settings: Settings) -> None:
    began = time.perf_counter()
    stop = _stop_signals()
    async with AsyncExitStack() as outer:
        gateway = GatewayProcess(_gateway_config(settings), _DESCRIPTORS.read_bytes())
        check_port(settings.host, settings.port)
        tasks = Tasks()
        outer.push_async_callback(gateway.stop, _GATEWAY_GRACE)
        identity = await outer.enter_async_context(_identity(settings))
        outer.push_async_callback(tasks.stop)
        _progress("modules", ", ".join(MODULES))
        async with serve(settings):
            await _write_keys(identity, settings)
            tasks.keep_running("gateway.keys", lambda: _follow_keys(identity, settings))
            _progress("gateway", f"Envoy on {settings.host}:{settings.port}")
            await gateway.start()
            ready = asyncio.create_task(gateway.wait_ready(_READY_SECONDS))
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({ready, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
                tasks.keep_running("gateway", lambda: _keep_up(gateway))
                tasks.keep_running("gateway.logs", lambda: _rotate(gateway))
                (settings.directory / _STARTED).touch()
                _welcome(settings, time.perf_counter() - began)
            ready.cancel()
            await stopped
            _say("\nStopping: letting calls finish…")
    _say("Stopped. Everything that was acknowledged is kept.")


def _stop_signals() -> asyncio.Event:
    """Set by the first Ctrl-C or SIGTERM; the second ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked)
    return stop


def _gateway_config(settings: Settings) -> GatewayConfig:
    origins = tuple(each.strip() for each in settings.cors_origins.split(",") if each.strip())
    return GatewayConfig(
        upstreams=dict.fromkeys(MODULES, (Endpoint(path=settings.socket),)),
        issuer=ISSUER,
        audience=AUDIENCE,
        jwks_file=_keys_file(settings),
        run_dir=settings.run_dir,
        host=settings.host,
        port=settings.port,
        cors_origins=origins,
        access_log=settings.directory / "logs" / "access.log",
        bounds=Bounds(body_bytes=settings.max_body_bytes),
    )


def _keys_file(settings: Settings) -> Path:
    # In a folder of its own: the gateway watches the folder for renames.
    return settings.run_dir / "keys" / "jwks.json"


@asynccontextmanager
async def _identity(settings: Settings) -> AsyncIterator[IdentityServiceStub]:
    async with grpc.aio.insecure_channel(unix_target(settings.socket)) as channel:
        yield IdentityServiceStub(channel)


async def _follow_keys(identity: IdentityServiceStub, settings: Settings) -> None:
    """Hand new signing keys to the gateway within seconds, long before they sign."""
    while True:
        await asyncio.sleep(_KEYS_SECONDS)
        await _write_keys(identity, settings)


async def _write_keys(identity: IdentityServiceStub, settings: Settings) -> None:
    reply = await identity.GetJwks(
        identity_service_pb2.GetJwksRequest(), timeout=_READY_SECONDS, wait_for_ready=True
    )
    text = json.dumps(MessageToDict(reply))
    file = _keys_file(settings)
    if file.exists() and file.read_text() == text:
        return
    file.parent.mkdir(exist_ok=True, mode=0o700)
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)


async def _keep_up(gateway: GatewayProcess) -> None:
    """Start the gateway again when it ends; the caller's back-off keeps that from spinning."""
    status = await gateway.wait()
    _logger.error("gateway_ended", status=status)
    await gateway.start()
    await gateway.wait_ready(_READY_SECONDS)


async def _rotate(gateway: GatewayProcess) -> None:
    while True:
        await asyncio.sleep(_LOGS_SECONDS)
        await gateway.rotate_logs()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _progress(step: str, what: str) -> None:
    _say(f"  {step:<9} {what}")


def _welcome(settings: Settings, seconds: float) -> None:
    url = f"http://{settings.host}:{settings.port}"
    _say(f"""
Plexus is up at {url} after {seconds:.1f} s. Its data and logs are in {settings.data_dir}/.

Ask the built-in agent something; paste this into another terminal:

  curl -s {url}/v1/users/register -d \\
    '{{"email": "you@example.com", "password": "change me soon", "display_name": "You"}}'
  TOKEN=$(curl -s {url}/v1/users/authenticate -d \\
    '{{"email": "you@example.com", "password": "change me soon"}}' | cut -d'"' -f4)
  curl -sN {url}/v1/agents/process -H "authorization: Bearer $TOKEN" -d \\
    '{{"input": "Hello! What can you do?"}}'

Or by the command line: .venv/bin/plexus login --register, then .venv/bin/plexus chat

Press Ctrl-C to stop.""")
