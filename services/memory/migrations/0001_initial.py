"""Spaces, commits, trees, versions, the feed, proposals, erasures."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    _spaces()
    _contents()
    _feed()
    _care()


def _spaces() -> None:
    """Spaces, their names and their commits."""
    op.create_table(
        "memory_spaces",
        sa.Column("tenant_id", sa.String(64), primary_key=True),
        sa.Column("space", sa.String(80), primary_key=True),
        sa.Column("guarded", sa.Boolean, nullable=False),
        sa.Column("keep_versions", sa.BigInteger),
        sa.Column("half_life", sa.BigInteger),
        sa.Column("review", sa.Boolean, nullable=False),
        sa.Column("merge_likeness", sa.Float),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("etag", sa.Integer, nullable=False),
        sa.Column("swept_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "memory_members",
        sa.Column("tenant_id", sa.String(64), primary_key=True),
        sa.Column("space", sa.String(80), primary_key=True),
        sa.Column("user_id", sa.String(64), primary_key=True),
    )
    op.create_table(
        "memory_branches",
        sa.Column("tenant_id", sa.String(64), primary_key=True),
        sa.Column("space", sa.String(80), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("commit_id", sa.String(80), nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "memory_tags",
        sa.Column("tenant_id", sa.String(64), primary_key=True),
        sa.Column("space", sa.String(80), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("commit_id", sa.String(80), nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "memory_commits",
        sa.Column("tenant_id", sa.String(64), primary_key=True),
        sa.Column("space", sa.String(80), primary_key=True),
        sa.Column("commit_id", sa.String(80), primary_key=True),
        sa.Column("branch", sa.String(64), nullable=False),
        sa.Column("parent_id", sa.String(80), nullable=False),
        sa.Column("merged_id", sa.String(80), nullable=False),
        sa.Column("root", sa.String(40), nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("author_id", sa.String(64), nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("added", sa.Integer, nullable=False),
        sa.Column("changed", sa.Integer, nullable=False),
        sa.Column("removed", sa.Integer, nullable=False),
        sa.Column("pruned", sa.Boolean, nullable=False),
    )
    op.create_index(
        "memory_commits_line", "memory_commits", ["tenant_id", "space", "branch", "create_time"]
    )
    op.create_index("memory_commits_author", "memory_commits", ["tenant_id", "author_id"])


def _contents() -> None:
    """Trees, versions, and what leads to them.

    Where rows are read by many ids, no index but the right one begins with tenant and space: before
    it has statistics PostgreSQL takes any that does to be as good, and reads all of the space.
    """
    op.create_table(
        "memory_nodes",
        sa.Column("tenant_id", sa.String(64), primary_key=True),
        sa.Column("space", sa.String(80), primary_key=True),
        sa.Column("name", sa.LargeBinary, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("stored_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "memory_versions",
        sa.Column("tenant_id", sa.String(64), primary_key=True),
        sa.Column("space", sa.String(80), primary_key=True),
        sa.Column("version_id", sa.String(80), primary_key=True),
        sa.Column("memory_id", sa.String(64), nullable=False),
        sa.Column("person", sa.String(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.Column("stored_time", sa.BigInteger, nullable=False),
        sa.Column("erased", sa.Boolean, nullable=False),
    )
    op.create_index(
        "memory_versions_person", "memory_versions", ["person", "tenant_id", "space", "version_id"]
    )
    op.create_index("memory_versions_memory", "memory_versions", ["memory_id"])
    op.create_table(
        "memory_contradictions",
        sa.Column("tenant_id", sa.String(64), primary_key=True),
        sa.Column("space", sa.String(80), primary_key=True),
        sa.Column("version_id", sa.String(80), primary_key=True),
        sa.Column("other_version_id", sa.String(80), primary_key=True),
        sa.Column("memory_id", sa.String(64), nullable=False),
        sa.Column("other_memory_id", sa.String(64), nullable=False),
    )
    op.create_index("memory_contradictions_other", "memory_contradictions", ["other_version_id"])
    op.create_table(
        "memory_marks",
        sa.Column("tenant_id", sa.String(64), primary_key=True),
        sa.Column("space", sa.String(80), primary_key=True),
        sa.Column("mark", sa.BigInteger, primary_key=True),
        sa.Column("memory_id", sa.String(64), primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "memory_known",
        sa.Column("memory_id", sa.String(64), primary_key=True),
        sa.Column("tenant_id", sa.String(64), primary_key=True),
        sa.Column("space", sa.String(80), nullable=False),
        sa.Column("strength", sa.Float, nullable=False),
        sa.Column("use_time", sa.BigInteger, nullable=False),
    )
    op.create_index("memory_known_used", "memory_known", ["space", "tenant_id", "use_time"])


def _feed() -> None:
    """The feed."""
    op.create_table(
        "memory_spans",
        sa.Column("tenant_id", sa.String(64), primary_key=True),
        sa.Column("space", sa.String(80), primary_key=True),
        sa.Column("memory_id", sa.String(64), primary_key=True),
        sa.Column("since", sa.BigInteger, primary_key=True),
        sa.Column("version_id", sa.String(80), nullable=False),
        sa.Column("until", sa.BigInteger),
        sa.Column("since_commit", sa.String(80), nullable=False),
        sa.Column("until_commit", sa.String(80), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("erased", sa.Boolean, nullable=False),
    )
    op.create_index("memory_spans_newest", "memory_spans", ["tenant_id", "space", "position"])
    op.create_index("memory_spans_position", "memory_spans", ["position"], unique=True)
    op.create_table(
        "memory_feed",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
    )


def _care() -> None:
    """Proposals and erasures."""
    op.create_table(
        "memory_proposals",
        sa.Column("tenant_id", sa.String(64), primary_key=True),
        sa.Column("proposal_id", sa.String(64), primary_key=True),
        sa.Column("space", sa.String(80), nullable=False),
        sa.Column("memory_id", sa.String(64), nullable=False),
        sa.Column("changes", sa.Boolean, nullable=False),
        sa.Column("person", sa.String(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("proposed_by", sa.String(64), nullable=False),
        sa.Column("decided_by", sa.String(64), nullable=False),
        sa.Column("decide_time", sa.BigInteger, nullable=False),
    )
    op.create_index(
        "memory_proposals_waiting", "memory_proposals", ["tenant_id", "state", "proposal_id"]
    )
    op.create_index("memory_proposals_person", "memory_proposals", ["tenant_id", "person"])
    op.create_table(
        "memory_erasures",
        sa.Column("tenant_id", sa.String(64), primary_key=True),
        sa.Column("erasure_id", sa.String(64), primary_key=True),
        sa.Column("person", sa.String(64), nullable=False),
        sa.Column("requested_by", sa.String(64), nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("cut_time", sa.BigInteger, nullable=False),
        sa.Column("erased_versions", sa.BigInteger, nullable=False),
        sa.Column("verified_places", sa.BigInteger, nullable=False),
        sa.Column("end_time", sa.BigInteger),
    )
    op.create_index("memory_erasures_running", "memory_erasures", ["end_time"])
    op.create_table(
        "memory_replies",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("method", sa.Text, primary_key=True),
        sa.Column("idempotency_key", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("sealed_reply", sa.LargeBinary, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
    )
    op.create_index("memory_replies_expiry", "memory_replies", ["expire_time"])
    # One for all tenants: it gives every change its place.
    op.execute("INSERT INTO memory_feed (name, position) VALUES ('main', 0)")


def downgrade() -> None:
    """Drop the tables."""
    for name in (
        "spaces",
        "members",
        "branches",
        "tags",
        "commits",
        "nodes",
        "versions",
        "contradictions",
        "marks",
        "known",
        "spans",
        "feed",
        "proposals",
        "erasures",
        "replies",
    ):
        op.drop_table(f"memory_{name}")
