"""What a module is to the process that serves it, and what it is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from services.runtime import migrations
from services.runtime.clients import Clients
from services.runtime.crypto import MasterKey
from services.runtime.db import Database
from services.runtime.settings import Settings
from services.runtime.shared import Shared
from services.runtime.tasks import Tasks


@dataclass(frozen=True)
class ModuleContext:
    """What `build` is given.

    Attributes:
        name: The module's name.
        server: Where it registers its servicer.
        database: The process's database; the module touches its own tables alone.
        clients: Channels to the other modules.
        shared: What its replicas have in common: news, limits, cached values.
        tasks: Where its workers run.
        checks: What must hold for the module to be SERVING; each raises when it does not.
        drains: Called when the process is to end, while every module still answers, with the
            seconds that work under way may take to finish.
    """

    name: str
    settings: Settings
    server: grpc.aio.Server
    database: Database
    clients: Clients
    master_key: MasterKey
    shared: Shared
    tasks: Tasks
    checks: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    drains: list[Callable[[float], Awaitable[None]]] = field(default_factory=list)

    async def migrate(self, folder: Path) -> None:
        """Bring the module's own tables up to date, and watch that the database answers.

        Raises:
            SchemaTooNew: A later version of this program wrote them.
        """
        await migrations.migrate(self.database, self.name, folder)
        self.checks.append(self.database.check)


Build = Callable[[ModuleContext], AbstractAsyncContextManager[None]]
