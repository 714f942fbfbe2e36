"""ingest's tables. Times are microseconds since 1970."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from services.runtime.leases import owners_table
from services.runtime.replies import replies_table

metadata = MetaData()

replies = replies_table("ingest", metadata)
owners = owners_table("ingest", metadata)

# `owner` is the process that reads it.
documents = Table(
    "ingest_documents",
    metadata,
    Column("document_id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("owner_id", String(64), nullable=False),
    Column("source_id", String(64), nullable=False),
    Column("parent_id", String(64), nullable=False),
    Column("title", Text, nullable=False),
    Column("said_title", Text, nullable=False),
    Column("file_name", Text, nullable=False),
    Column("media_type", String(200), nullable=False),
    Column("said_type", String(200), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("uri", Text, nullable=False),
    Column("uri_key", String(64), nullable=False),
    Column("space", String(64), nullable=False),
    Column("collection", String(64), nullable=False),
    Column("visibility", Integer, nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("state", Integer, nullable=False),
    Column("failure", JSON(none_as_null=True)),
    Column("percent", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("passage_count", Integer, nullable=False),
    Column("page_count", Integer, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Column("url", Text, nullable=False),
    Column("http_etag", Text, nullable=False),
    Column("http_modified", Text, nullable=False),
    Column("bytes_heap", String(64), nullable=False),
    Column("passages_heap", String(64), nullable=False),
    Column("read_sha256", String(64), nullable=False),
    Column("ticket", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("depth", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("owner", String(200)),
)

# Bytes or passages that belong together. They are filled and emptied in steps, so that no
# transaction is a long one: a document has those that it names, and nobody sees the others.
heaps = Table(
    "ingest_heaps",
    metadata,
    Column("heap_id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("state", Integer, nullable=False),
    Column("owner", String(200), nullable=False),
)

parts = Table(
    "ingest_parts",
    metadata,
    Column("heap_id", String(64), primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("data", LargeBinary, nullable=False),
)

passages = Table(
    "ingest_passages",
    metadata,
    Column("heap_id", String(64), primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("document_id", String(64), nullable=False),
    Column("passage_id", String(64), nullable=False, unique=True),
    Column("text", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("kind", Integer, nullable=False),
    Column("headings", JSON, nullable=False),
    Column("page", Integer, nullable=False),
    Column("start", Integer, nullable=False),
    Column("end", Integer, nullable=False),
)

uploads = Table(
    "ingest_uploads",
    metadata,
    Column("upload_id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("info", JSON, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("heap_id", String(64), nullable=False),
    Column("document_id", String(64), nullable=False),
    Column("expire_time", BigInteger, nullable=False),
)

# The last change of each document; the newest position is in a row of its own, whose lock is held
# until the commit, so that positions are committed in their order.
feed = Table(
    "ingest_feed",
    metadata,
    Column("document_id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("position", BigInteger, nullable=False),
)
feed_ends = Table(
    "ingest_feed_ends",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("position", BigInteger, nullable=False),
)

# `owner` is the process that looks at it.
sources = Table(
    "ingest_sources",
    metadata,
    Column("source_id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("display_name", String(200), nullable=False),
    Column("place", JSON, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("schedule", String(100), nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("collection", String(64), nullable=False),
    Column("visibility", Integer, nullable=False),
    Column("next_time", BigInteger),
    Column("last_run", JSON(none_as_null=True)),
    Column("cursor", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("asked", Boolean, nullable=False),
    Column("owner", String(200)),
)

# What a source brought, by its own names of things: `mark` says which state of it.
source_items = Table(
    "ingest_source_items",
    metadata,
    Column("source_id", String(64), primary_key=True),
    Column("item_key", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("document_id", String(64), nullable=False),
    Column("mark", String(200), nullable=False),
    Column("seen", BigInteger, nullable=False),
)
