"""Rows as use would leave them, made by the database itself: a million takes it seconds."""

from __future__ import annotations

from sqlalchemy import text

from services.runtime.db import EVERYONE, Database

MESSAGES_PER_SESSION = 100
MESSAGES_PER_RUN = 2
# Ids are spread as real ones are: made from a number that a multiplication scatters.
_SCATTERED = "substr('0000000000' || ((n.i * 2654435761) % 4294967296), -10)"
_SCATTERED_POSTGRES = "lpad(((n.i * 2654435761) % 4294967296)::text, 10, '0')"
_NUMBERS = """WITH RECURSIVE n(i) AS
 (SELECT CAST(:first AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < :last - 1)"""
# PostgreSQL gives a statement ten seconds.
_SLICE = 50_000
_START = 1_760_000_000_000_000
_SESSIONS = """INSERT INTO history_sessions
 (session_id, tenant_id, user_id, title, message_count, create_time, update_time)
 {numbers} SELECT 'ses_' || i, 'ten_bench_' || (i % :tenants), 'usr_1', 'A session', :each,
 {start} + i, {start} + i FROM n"""
_MESSAGES = """INSERT INTO history_messages
 (session_id, place, message_id, tenant_id, author, text, size, run_id, partial, create_time)
 {numbers} SELECT 'ses_' || (i / :each), i % :each + 1, 'msg_' || {scattered} || '_' || i,
 'ten_bench_' || ((i / :each) % :tenants), i % 2 + 1,
 'A message as people write them, neither long nor short.', 55, 'run_1', {false}, {start} + i
 FROM n"""
_RUNS = """INSERT INTO agents_runs
 (run_id, tenant_id, user_id, agent_id, session_id, input, state, output, last_sequence, digest,
 create_time, end_time, owner)
 {numbers} SELECT 'run_' || {scattered} || '_' || i, 'ten_bench_' || (i % :tenants), 'usr_1',
 'agt_1', 'ses_' || (i / :each), 'What do you think?', 2, 'Not much.', 3, '', {start} + i,
 {start} + i, 'nobody' FROM n"""


async def seed(database: Database, messages: int, tenants: int) -> None:
    """Fill history and agents.

    Tenants are called `ten_bench_<n>`; tenant n has each session whose number is n modulo them.
    """
    scattered, false = _SCATTERED, "0"
    if database.dialect == "postgresql":
        scattered, false = _SCATTERED_POSTGRES, "false"
    sessions = max(tenants, messages // MESSAGES_PER_SESSION)
    each = max(1, messages // sessions)
    for module, template, rows in (
        ("history", _SESSIONS, sessions),
        ("history", _MESSAGES, sessions * each),
        ("agents", _RUNS, max(tenants, messages // MESSAGES_PER_RUN)),
    ):
        statement = template.format(
            numbers=_NUMBERS, start=_START, scattered=scattered, false=false
        )
        values = {"tenants": tenants, "each": each}
        used = {name: value for name, value in values.items() if f":{name}" in statement}
        for first in range(0, rows, _SLICE):
            used |= {"first": first, "last": min(rows, first + _SLICE)}
            async with database.of(module).transaction(EVERYONE) as connection:
                await connection.execute(text(statement), used)
    async with database.transaction(EVERYONE) as connection:
        await connection.execute(text("ANALYZE"))


def run_id(number: int) -> str:
    """The id of a run by its number."""
    return f"run_{(number * 2654435761) % 4294967296:010d}_{number}"
