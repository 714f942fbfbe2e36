"""What every command that runs a process shares: signals, a loop, and errors people can act on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine

from pydantic import ValidationError

from gateway.errors import GatewayError
from services.packaged import PackagedServerError
from services.runtime.contract import ContractError
from services.runtime.crypto import MasterKeyError
from services.runtime.db import DatabaseDamaged, DatabaseUnfit
from services.runtime.errors import PlexusError
from services.runtime.migrations import SchemaTooNew, SchemaTooOld
from services.runtime.resilience.tls import TlsError
from services.runtime.settings import Settings, UnusableSetting
from services.runtime.shared import SharedUrlError
from services.runtime.topology import AddressTaken, TopologyError

Work = Callable[[Settings, asyncio.Event], Coroutine[None, None, None]]
_KNOWN = (
    AddressTaken,
    ContractError,
    DatabaseDamaged,
    DatabaseUnfit,
    GatewayError,
    MasterKeyError,
    PackagedServerError,
    PlexusError,
    SchemaTooNew,
    SchemaTooOld,
    SharedUrlError,
    TlsError,
    TopologyError,
    UnusableSetting,
)


class AlreadyRunning(Exception):
    """Another process serves this data directory; the text says where."""


def explained(start: Callable[[Settings], None], settings: Settings | None) -> int:
    """Do it, and tell people what they can do where it fails; returns the exit status."""
    try:
        start(settings or Settings())
    except AlreadyRunning as known:
        say(str(known))
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False):
            name = "_".join(("PLEXUS", *map(str, each["loc"]))).upper()
            say(f"{name}: {each['msg']}. Change it and start again.")
        return 1
    except _KNOWN as error:
        say(f"Plexus did not start: {error}")
        return 1
    except OSError as error:
        say(f"Plexus did not start: {error.strerror or error} ({error.filename or 'no file'})")
        return 1
    return 0


def run(work: Work, settings: Settings) -> None:
    """Run something that ends when its event is set: by the first Ctrl-C or SIGTERM."""
    import uvloop

    async def main() -> None:
        await work(settings, _stop_signals())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def prepare(settings: Settings) -> None:
    """Make the folders of an installation, for its owner alone."""
    for folder in (settings.directory, settings.run_dir):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)


def say(text: str) -> None:
    """Tell whoever started it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def progress(step: str, what: str) -> None:
    """Tell how far it is."""
    say(f"  {step:<9} {what}")


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
