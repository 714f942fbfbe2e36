"""Where memory's objects meet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from plexus.memory.v1.branch_service_pb2_grpc import add_BranchServiceServicer_to_server
from plexus.memory.v1.care_service_pb2_grpc import add_CareServiceServicer_to_server
from plexus.memory.v1.feed_service_pb2_grpc import add_FeedServiceServicer_to_server
from plexus.memory.v1.memory_service_pb2_grpc import add_MemoryServiceServicer_to_server
from plexus.memory.v1.version_service_pb2_grpc import add_VersionServiceServicer_to_server

from services.memory.ports import RemoteSearch
from services.memory.service.branching import Branching
from services.memory.service.browsing import Browsing
from services.memory.service.caring import Caring
from services.memory.service.erasing import Erasing
from services.memory.service.feeding import Feeding
from services.memory.service.retrieving import Retrieving
from services.memory.service.storing import Storing
from services.memory.service.sweeping import Sweeping
from services.memory.service.writing import Desk
from services.memory.servicer.branch import BranchServicer
from services.memory.servicer.care import CareServicer
from services.memory.servicer.feed import FeedServicer
from services.memory.servicer.memory import MemoryServicer
from services.memory.servicer.version import VersionServicer
from services.memory.settings import MemorySettings
from services.memory.tables import replies
from services.runtime.module import ModuleContext
from services.runtime.replies import Replies


@asynccontextmanager
async def build(ctx: ModuleContext) -> AsyncIterator[None]:
    """Bring the tables up to date and register the servicers."""
    await ctx.migrate(Path(__file__).parent / "migrations")
    desk = Desk(ctx.database, ctx.shared.notices)
    kept = Replies(replies, ctx.master_key)
    browsing = Browsing(desk)
    storing = Storing(desk, kept)
    retrieving = Retrieving(browsing, RemoteSearch(ctx.clients.channel("context")))
    erasing = Erasing(desk)
    sweeping = Sweeping(desk, kept, MemorySettings().memory_sweep_seconds)
    memory = MemoryServicer(storing, browsing, retrieving)
    add_MemoryServiceServicer_to_server(memory, ctx.server)
    add_VersionServiceServicer_to_server(VersionServicer(browsing), ctx.server)
    add_BranchServiceServicer_to_server(BranchServicer(Branching(desk)), ctx.server)
    add_CareServiceServicer_to_server(CareServicer(Caring(desk, erasing.ask)), ctx.server)
    add_FeedServiceServicer_to_server(FeedServicer(Feeding(desk), browsing), ctx.server)
    ctx.tasks.keep_running("memory.erasing", erasing.run)
    ctx.tasks.keep_running("memory.sweeping", sweeping.run)
    yield
