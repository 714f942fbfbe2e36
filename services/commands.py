"""`python -m services …`: an installation part by part, as an orchestrator starts them."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from functools import partial

from services import launch
from services.runtime.settings import Settings

_ABOUT = "Settings are read from PLEXUS_* in the environment; docs/settings.md lists them."


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services", description=__doc__, epilog=_ABOUT)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    up = commands.add_parser("up", help="the whole installation on one machine")
    up.add_argument("--shape", choices=("embedded", "mesh"), default="embedded")
    serving = commands.add_parser("serve", help="one process of a group, without a gateway")
    serving.add_argument("--group", required=True, help="its name in PLEXUS_GROUPS")
    serving.add_argument("--replica", type=int, default=0, help="which of them, from 0")
    commands.add_parser("migrate", help="bring the tables up to date, as their owner")
    rotating = commands.add_parser("master-key", help="replace the master key, step by step")
    rotating.add_argument("step", choices=("add", "use", "forget"))
    commands.add_parser("gateway", help="Envoy in front of the groups")
    asked = parser.parse_args(arguments)
    match asked.command:
        case "serve":
            return launch.explained(partial(_serve, group=asked.group, replica=asked.replica), None)
        case "migrate":
            return launch.explained(_migrate, None)
        case "master-key":
            return launch.explained(partial(_rotate, step=asked.step), None)
        case "gateway":
            return launch.explained(_gateway, None)
        case _:
            from services import up as whole

            return whole.main(shape=getattr(asked, "shape", "embedded"))


def _serve(settings: Settings, *, group: str, replica: int) -> None:
    from services.app import MODULES, serve
    from services.runtime import log
    from services.runtime.topology import Topology

    launch.prepare(settings)
    log.configure(settings.log_level, settings.directory / "logs" / f"{group}-{replica}.log")
    topology = Topology.mesh(settings, MODULES)
    members = topology.group(group).modules

    async def work(settings: Settings, stop: asyncio.Event) -> None:
        async with serve(settings, members, topology=topology, replica=replica):
            await stop.wait()

    launch.run(work, settings)


def _migrate(settings: Settings) -> None:
    from services import schema

    async def work(settings: Settings, stop: asyncio.Event) -> None:
        await schema.migrate(settings, launch.say)

    owner = settings.database_owner_url
    if owner.get_secret_value() and not settings.database_url.get_secret_value():
        # A job that migrates need not know how others log in.
        settings = settings.model_copy(update={"database_url": owner})
    launch.run(work, settings)


def _rotate(settings: Settings, *, step: str) -> None:
    from services import rotation

    async def work(settings: Settings, stop: asyncio.Event) -> None:
        await rotation.step(settings, step, launch.say)

    launch.run(work, settings)


def _gateway(settings: Settings) -> None:
    from services.app import MODULES
    from services.edge import Edge
    from services.runtime import log
    from services.runtime.topology import Topology

    launch.prepare(settings)
    log.configure(settings.log_level, settings.directory / "logs" / "gateway.log")

    async def work(settings: Settings, stop: asyncio.Event) -> None:
        edge = Edge(settings, Topology.mesh(settings, MODULES))
        try:
            await edge.open_until(stop)
        finally:
            await edge.stop()

    launch.run(work, settings)
