"""Memory's use cases on a database, without a server: for who calls is what matters, or when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.memory.domain.values import MAIN, At, Content, Record, Wanted
from services.memory.ports import Found
from services.memory.service.branching import Branching, Merge
from services.memory.service.browsing import Browsing
from services.memory.service.caring import Caring
from services.memory.service.erasing import Erasing
from services.memory.service.feeding import Feeding, Turned
from services.memory.service.retrieving import Retrieval, Retrieving
from services.memory.service.storing import Reply, Store, Storing
from services.memory.service.sweeping import Sweeping
from services.memory.service.writing import Desk
from services.memory.tables import replies
from services.runtime.context import Principal, acting_as, mesh_principal
from services.runtime.crypto import MasterKey
from services.runtime.db import Database
from services.runtime.errors import Unavailable
from services.runtime.migrations import migrate
from services.runtime.replies import Repeatable, Replies
from services.runtime.shared import MemoryShared

MIGRATIONS = Path(__file__).parents[3] / "services" / "memory" / "migrations"
EVERYTHING = Wanted(valid_at=None)


@dataclass
class ScriptedSearch:
    """Stands for context: it finds what it is told to, or is away."""

    found: Found | None = None
    asked: list[tuple[str, str, int | None]] = field(default_factory=list)

    async def memories(
        self, query: str, space: str, as_of: int | None, size: int, token: str
    ) -> Found:
        """See `ports.Search`."""
        self.asked.append((query, space, as_of))
        if self.found is None:
            raise Unavailable("away")
        return self.found


class House:
    """All of memory, as one process has it."""

    def __init__(self, database: Database, key: bytes = b"k" * 32) -> None:
        self.database = database
        self.desk = Desk(database, MemoryShared().notices)
        kept = Replies(replies, MasterKey(key))
        self.search = ScriptedSearch()
        self.storing = Storing(self.desk, kept)
        self.browsing = Browsing(self.desk)
        self.branching = Branching(self.desk)
        self.erasing = Erasing(self.desk)
        self.caring = Caring(self.desk, self.erasing.ask)
        self.feeding = Feeding(self.desk)
        self.retrieving = Retrieving(self.browsing, self.search)
        # Nothing is too young to be swept.
        self.sweeping = Sweeping(self.desk, kept, 3600.0, lately=0)

    async def store(self, who: Principal, *texts: str, **more: Any) -> Reply:
        """Store texts in one commit."""
        content = more.pop("content", {})
        memory_id = more.pop("memory_id", "")
        records = [Record(Content(text=text, **content), memory_id) for text in texts]
        asked = Store(**{"space": "", "records": records, **more})
        with acting_as(who):
            return await self.storing.store(who, asked, Repeatable("", ""))

    async def texts(self, who: Principal, space: str = "", at: At | None = None) -> list[str]:
        """What a space holds, in the order of the alphabet."""
        async with self.browsing.view(who, space, at or At()) as view:
            held = await view.page("", 1000)
            return sorted(each.version.content.text for each in await view.memories(held))

    async def retrieve(self, who: Principal, query: str, **more: Any) -> Retrieval:
        """What answers a query."""
        asked: dict[str, Any] = {"name": "", "at": At(), "wanted": EVERYTHING, **more}
        return await self.retrieving.retrieve(
            who, asked["name"], query, asked["wanted"], asked["at"], 0, ""
        )

    async def merge(self, who: Principal, branch: str, space: str = "", **more: Any) -> Any:
        """Merge a branch into main."""
        values: dict[str, Any] = {
            "into": MAIN,
            "expected_head": "",
            "sides": {},
            "message": "",
            "dry_run": False,
            **more,
        }
        return await self.branching.merge(who, Merge(space, branch, **values))

    async def feed(self, who: Principal | None = None, after: int = 0) -> list[Turned]:
        """The feed from a position on, page by page."""
        found: list[Turned] = []
        while True:
            page, _ = await self.feeding.changes(who or mesh_principal(), after, 3)
            if not page:
                return found
            found += page
            after = page[-1].span.position

    async def erased(self, who: Principal, person: str) -> Any:
        """Erase a person, to the end."""
        asked = await self.caring.erase(who, person)
        await self.erasing.erase(asked)
        return await self.caring.erasure(who, asked.erasure_id)


async def built(database: Database) -> House:
    """Memory on an empty database."""
    found = database.of("memory")
    await migrate(found, "memory", MIGRATIONS)
    return House(found)


def shown(turned: Sequence[Turned]) -> list[tuple[str, bool]]:
    """What changes say, and whether each is over."""
    return [
        (each.memory.version.content.text if each.memory else "", each.span.until is not None)
        for each in turned
    ]
