"""Where ingest's objects meet."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from plexus.ingest.v1.document_service_pb2_grpc import add_DocumentServiceServicer_to_server
from plexus.ingest.v1.feed_service_pb2_grpc import add_FeedServiceServicer_to_server
from plexus.ingest.v1.upload_service_pb2_grpc import add_UploadServiceServicer_to_server

from services.ingest import tables, workers
from services.ingest.leases import Leases
from services.ingest.service.bringing import Bringing
from services.ingest.service.documents import Documents
from services.ingest.service.feed import Feed
from services.ingest.service.fetching import Fetcher
from services.ingest.service.keeping import Keeper
from services.ingest.service.news import News
from services.ingest.service.parsers import Parsers
from services.ingest.service.reading import Reader
from services.ingest.service.scratch import scratch
from services.ingest.service.uploads import Uploads
from services.ingest.servicer.documents import DocumentServicer
from services.ingest.servicer.feed import FeedServicer
from services.ingest.servicer.uploads import UploadServicer
from services.ingest.settings import IngestSettings
from services.runtime.egress import Egress
from services.runtime.errors import PlexusError
from services.runtime.module import ModuleContext
from services.runtime.replies import Replies

# Most of a document's time may go by waiting for its address.
_READ_PER_PARSER = 4


@asynccontextmanager
async def build(ctx: ModuleContext) -> AsyncIterator[None]:
    """Bring the tables up to date, register the servicers, read what waits.

    Raises:
        SchemaTooNew: A later version of this program wrote the tables.
    """
    settings = IngestSettings()
    await ctx.migrate(Path(__file__).parent / "migrations")
    # One process at a time has an SQLite file, so that the one before is known to have ended.
    alone = ctx.database.dialect == "sqlite"
    leases = Leases(ctx.database.apart(), ctx.settings.instance or ("only" if alone else ""))
    await leases.begin()
    news = News(ctx.shared.notices)
    egress = Egress(ctx.settings.egress_allow)
    replies = Replies(tables.replies, ctx.master_key)
    keeper = Keeper(ctx.database, leases.owner)
    fetcher = Fetcher(settings, egress, keeper)
    bringing = Bringing(settings, ctx.database, keeper, egress, replies, news)
    documents = Documents(ctx.database, keeper, news)
    uploads = Uploads(settings, ctx.database, keeper, bringing, replies)
    add_DocumentServiceServicer_to_server(DocumentServicer(documents, bringing), ctx.server)
    add_UploadServiceServicer_to_server(UploadServicer(uploads), ctx.server)
    add_FeedServiceServicer_to_server(FeedServicer(Feed(ctx.database, news), documents), ctx.server)
    with scratch(ctx.settings.run_dir / "ingest") as folder:
        parsers = Parsers(settings, folder)
        reader = Reader(
            ctx.database,
            keeper,
            fetcher,
            parsers,
            leases,
            news,
            ctx.tasks,
            folder,
            settings.ingest_parsers * _READ_PER_PARSER,
        )
        ctx.tasks.keep_running("ingest.lease", reader.keep_lease)
        ctx.tasks.keep_running("ingest.reader", reader.run)
        ctx.tasks.keep_running("ingest.parsers", parsers.keep_few)
        purge = partial(workers.keep_purging, ctx.database, replies, leases.owner)
        ctx.tasks.keep_running("ingest.purge", purge)
        yield
        await parsers.close()
    await fetcher.close()
    with contextlib.suppress(PlexusError):  # without it, it runs out by itself
        await leases.end()
