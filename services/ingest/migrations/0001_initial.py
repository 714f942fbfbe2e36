"""Documents, their bytes and passages, uploads, sources and the feed."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
compatible = True

_ID = sa.String(64)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "ingest_replies",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("method", sa.Text, primary_key=True),
        sa.Column("idempotency_key", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("sealed_reply", sa.LargeBinary, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "ingest_owners",
        sa.Column("owner", sa.String(200), primary_key=True),
        sa.Column("instance", sa.String(128), nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "ingest_documents",
        sa.Column("document_id", _ID, primary_key=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("owner_id", _ID, nullable=False),
        sa.Column("source_id", _ID, nullable=False),
        sa.Column("parent_id", _ID, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("said_title", sa.Text, nullable=False),
        sa.Column("file_name", sa.Text, nullable=False),
        sa.Column("media_type", sa.String(200), nullable=False),
        sa.Column("said_type", sa.String(200), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", _ID, nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("uri_key", _ID, nullable=False),
        sa.Column("space", _ID, nullable=False),
        sa.Column("collection", _ID, nullable=False),
        sa.Column("visibility", sa.Integer, nullable=False),
        sa.Column("attributes", sa.JSON, nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("failure", sa.JSON(none_as_null=True)),
        sa.Column("percent", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("passage_count", sa.Integer, nullable=False),
        sa.Column("page_count", sa.Integer, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("http_etag", sa.Text, nullable=False),
        sa.Column("http_modified", sa.Text, nullable=False),
        sa.Column("bytes_heap", _ID, nullable=False),
        sa.Column("passages_heap", _ID, nullable=False),
        sa.Column("read_sha256", _ID, nullable=False),
        sa.Column("ticket", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("depth", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(200)),
    )
    op.create_table(
        "ingest_heaps",
        sa.Column("heap_id", _ID, primary_key=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
    )
    op.create_table(
        "ingest_parts",
        sa.Column("heap_id", _ID, primary_key=True),
        sa.Column("start", sa.BigInteger, primary_key=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "ingest_passages",
        sa.Column("heap_id", _ID, primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("document_id", _ID, nullable=False),
        sa.Column("passage_id", _ID, nullable=False, unique=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("kind", sa.Integer, nullable=False),
        sa.Column("headings", sa.JSON, nullable=False),
        sa.Column("page", sa.Integer, nullable=False),
        sa.Column("start", sa.Integer, nullable=False),
        sa.Column("end", sa.Integer, nullable=False),
    )
    op.create_table(
        "ingest_uploads",
        sa.Column("upload_id", _ID, primary_key=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("info", sa.JSON, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", _ID, nullable=False),
        sa.Column("received", sa.BigInteger, nullable=False),
        sa.Column("heap_id", _ID, nullable=False),
        sa.Column("document_id", _ID, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "ingest_feed",
        sa.Column("document_id", _ID, primary_key=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "ingest_feed_ends",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "ingest_sources",
        sa.Column("source_id", _ID, primary_key=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("display_name", sa.String(200), nullable=False),
        sa.Column("place", sa.JSON, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("schedule", sa.String(100), nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("collection", _ID, nullable=False),
        sa.Column("visibility", sa.Integer, nullable=False),
        sa.Column("next_time", sa.BigInteger),
        sa.Column("last_run", sa.JSON(none_as_null=True)),
        sa.Column("cursor", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("asked", sa.Boolean, nullable=False),
        sa.Column("owner", sa.String(200)),
    )
    op.create_table(
        "ingest_source_items",
        sa.Column("source_id", _ID, primary_key=True),
        sa.Column("item_key", _ID, primary_key=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("document_id", _ID, nullable=False),
        sa.Column("mark", sa.String(200), nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
    )
    _index("documents", "uri", ["tenant_id", "space", "uri_key"], "uri_key <> ''", unique=True)
    _index("documents", "sha256", ["tenant_id", "sha256"])
    _index("documents", "create_time", ["tenant_id", "create_time", "document_id"])
    _index("documents", "size", ["tenant_id", "size"])
    _index("documents", "parent_id", ["parent_id"], "parent_id <> ''")
    _index("documents", "source_id", ["source_id", "document_id"], "source_id <> ''")
    _index("documents", "under_way", ["state", "update_time"], "state < 3")
    _index("heaps", "state", ["state"], "state <> 2")
    _index("uploads", "expire_time", ["expire_time"])
    _index("uploads", "tenant_id", ["tenant_id", "expire_time"])
    _index("feed", "position", ["position"], unique=True)
    _index("feed", "tenant_id", ["tenant_id", "position"])
    _index("sources", "tenant_id", ["tenant_id", "create_time"])
    _index("sources", "next_time", ["next_time"], "next_time IS NOT NULL")
    _index("sources", "owner", ["owner"], "owner IS NOT NULL OR asked")
    op.execute("INSERT INTO ingest_feed_ends VALUES ('feed', 0)")


def _index(
    table: str, name: str, columns: list[str], some: str | None = None, *, unique: bool = False
) -> None:
    where = sa.text(some) if some else None
    op.create_index(
        f"ingest_{table}_{name}",
        f"ingest_{table}",
        columns,
        unique=unique,
        sqlite_where=where,
        postgresql_where=where,
    )


def downgrade() -> None:
    """Drop them."""
    for name in (
        *("source_items", "sources", "feed_ends", "feed", "uploads", "passages", "parts"),
        *("heaps", "documents", "owners", "replies"),
    ):
        op.drop_table(f"ingest_{name}")
