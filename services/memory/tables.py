"""Memory's tables."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from services.runtime.replies import replies_table

metadata = MetaData()

spaces = Table(
    "memory_spaces",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("space", String(80), primary_key=True),
    Column("guarded", Boolean, nullable=False),
    Column("keep_versions", BigInteger),
    Column("half_life", BigInteger),
    Column("review", Boolean, nullable=False),
    Column("merge_likeness", Float),
    Column("create_time", BigInteger, nullable=False),
    Column("etag", Integer, nullable=False),
    Column("swept_time", BigInteger, nullable=False),
)

members = Table(
    "memory_members",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("space", String(80), primary_key=True),
    Column("user_id", String(64), primary_key=True),
)

branches = Table(
    "memory_branches",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("space", String(80), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("commit_id", String(80), nullable=False),
    Column("create_time", BigInteger, nullable=False),
)

tags = Table(
    "memory_tags",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("space", String(80), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("commit_id", String(80), nullable=False),
    Column("create_time", BigInteger, nullable=False),
)

commits = Table(
    "memory_commits",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("space", String(80), primary_key=True),
    Column("commit_id", String(80), primary_key=True),
    Column("branch", String(64), nullable=False),
    Column("parent_id", String(80), nullable=False),
    Column("merged_id", String(80), nullable=False),
    Column("root", String(40), nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("message", Text, nullable=False),
    Column("author_id", String(64), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("added", Integer, nullable=False),
    Column("changed", Integer, nullable=False),
    Column("removed", Integer, nullable=False),
    Column("pruned", Boolean, nullable=False),
)

nodes = Table(
    "memory_nodes",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("space", String(80), primary_key=True),
    Column("name", LargeBinary, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("stored_time", BigInteger, nullable=False),
)

versions = Table(
    "memory_versions",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("space", String(80), primary_key=True),
    Column("version_id", String(80), primary_key=True),
    Column("memory_id", String(64), nullable=False),
    Column("person", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Column("stored_time", BigInteger, nullable=False),
    Column("erased", Boolean, nullable=False),
)

contradictions = Table(
    "memory_contradictions",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("space", String(80), primary_key=True),
    Column("version_id", String(80), primary_key=True),
    Column("other_version_id", String(80), primary_key=True),
    Column("memory_id", String(64), nullable=False),
    Column("other_memory_id", String(64), nullable=False),
)

marks = Table(
    "memory_marks",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("space", String(80), primary_key=True),
    Column("mark", BigInteger, primary_key=True),
    Column("memory_id", String(64), primary_key=True),
    sqlite_with_rowid=False,
)

known = Table(
    "memory_known",
    metadata,
    Column("memory_id", String(64), primary_key=True),
    Column("tenant_id", String(64), primary_key=True),
    Column("space", String(80), nullable=False),
    Column("strength", Float, nullable=False),
    Column("use_time", BigInteger, nullable=False),
)

spans = Table(
    "memory_spans",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("space", String(80), primary_key=True),
    Column("memory_id", String(64), primary_key=True),
    Column("since", BigInteger, primary_key=True),
    Column("version_id", String(80), nullable=False),
    Column("until", BigInteger),
    Column("since_commit", String(80), nullable=False),
    Column("until_commit", String(80), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("erased", Boolean, nullable=False),
)

feed = Table(
    "memory_feed",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("position", BigInteger, nullable=False),
)

proposals = Table(
    "memory_proposals",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("proposal_id", String(64), primary_key=True),
    Column("space", String(80), nullable=False),
    Column("memory_id", String(64), nullable=False),
    Column("changes", Boolean, nullable=False),
    Column("person", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("state", Integer, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("proposed_by", String(64), nullable=False),
    Column("decided_by", String(64), nullable=False),
    Column("decide_time", BigInteger, nullable=False),
)

erasures = Table(
    "memory_erasures",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("erasure_id", String(64), primary_key=True),
    Column("person", String(64), nullable=False),
    Column("requested_by", String(64), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("cut_time", BigInteger, nullable=False),
    Column("erased_versions", BigInteger, nullable=False),
    Column("verified_places", BigInteger, nullable=False),
    Column("end_time", BigInteger),
)

replies = replies_table("memory", metadata)
