"""What each store promises, on every database that it can be kept in."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from services.identity import store, tables
from services.identity.domain import (
    DAY,
    FAILURES_KEPT,
    SECOND,
    Account,
    ApiKey,
    AuditEntry,
    EmailTaken,
    RefreshToken,
    Revocation,
    SigningKey,
    User,
)
from services.identity.store.signing_keys import GenerationTaken
from services.identity.tables import login_failures, metadata, refresh_tokens
from services.identity.workers import purge
from services.runtime import clock
from services.runtime.crypto import MasterKey
from services.runtime.db import EVERYONE, Connection, Database
from services.runtime.errors import PlexusError
from services.runtime.replies import Replies

NOW = clock.now()


async def add_user(connection: Connection, number: int = 1, email: str = "") -> User:
    user = User(
        user_id=f"usr_{number}",
        tenant_id=f"ten_{number}",
        email=email or f"{number}@example.org",
        display_name="Somebody",
        roles=frozenset({1, 4}),
        create_time=NOW,
        version=1,
    )
    await store.users.found_tenant(connection, Account(user, "a hash"))
    return user


def api_key(number: int, tenant: int = 1, *, made: int = NOW, life: int = DAY) -> ApiKey:
    return ApiKey(
        f"key_{number}", f"ten_{tenant}", f"usr_{tenant}", "k", frozenset({2}), made, made + life
    )


def refresh_token(number: int, login: str = "lgn_1", life: int = DAY) -> RefreshToken:
    return RefreshToken(f"hash{number}", login, "ten_1", "usr_1", NOW + life)


async def test_the_tables_are_as_the_migrations_make_them(database: Database) -> None:
    def columns(connection: sa.Connection) -> dict[str, set[tuple[str, str, bool]]]:
        found = sa.inspect(connection)
        return {
            table: {
                (each["name"], str(each["type"]), each["nullable"])
                for each in found.get_columns(table)
            }
            for table in found.get_table_names()
            if table in metadata.tables
        }

    async with database.read(EVERYONE) as connection:
        made = await connection.run_sync(columns)
        dialect = connection.dialect
    assert made == {
        name: {
            (column.name, column.type.compile(dialect), bool(column.nullable))
            for column in table.columns
        }
        for name, table in metadata.tables.items()
    }


async def test_a_user_is_found_by_email_and_within_their_tenant(database: Database) -> None:
    async with database.transaction(EVERYONE) as connection:
        assert await store.users.is_first(connection)
        user = await add_user(connection)
        assert not await store.users.is_first(connection)
    async with database.read(EVERYONE) as connection:
        assert await store.users.by_email(connection, user.email) == Account(user, "a hash")
        assert await store.users.by_email(connection, "other@example.org") is None
        assert await store.users.get(connection, "ten_1", "usr_1") == user
        assert await store.users.get(connection, "ten_2", "usr_1") is None


async def test_one_email_is_one_account(database: Database) -> None:
    async with database.transaction(EVERYONE) as connection:
        await add_user(connection, 1, "a@b.org")
    with pytest.raises(EmailTaken):
        async with database.transaction(EVERYONE) as connection:
            await add_user(connection, 2, "a@b.org")
    async with database.read(EVERYONE) as connection:
        tenants = await connection.execute(sa.text("SELECT count(*) FROM identity_tenants"))
        assert tenants.scalar_one() == 1


async def test_a_hash_is_replaced_unless_the_password_was_changed(database: Database) -> None:
    async with database.transaction(EVERYONE) as connection:
        user = await add_user(connection)
        await store.users.replace_hash(connection, Account(user, "another hash"), "lost")
        assert (await store.users.by_email(connection, user.email)) == Account(user, "a hash")
        await store.users.replace_hash(connection, Account(user, "a hash"), "better")
        assert (await store.users.by_email(connection, user.email)) == Account(user, "better")


async def test_failures_add_up_and_are_forgotten(database: Database) -> None:
    async with database.transaction(EVERYONE) as connection:
        for _ in range(6):
            await store.login_failures.add(connection, "k", NOW)
        found = await store.login_failures.get(connection, "k", NOW)
        assert found is not None
        assert (found.count, found.last_time, found.blocked_until) == (6, NOW, NOW + 2 * SECOND)
        later = NOW + FAILURES_KEPT
        assert await store.login_failures.get(connection, "k", later) is None
        await store.login_failures.add(connection, "k", later)
        found = await store.login_failures.get(connection, "k", later)
        assert found is not None
        assert (found.count, found.blocked_until) == (1, 0)
        await store.login_failures.clear(connection, "k")
        assert await store.login_failures.get(connection, "k", later) is None


async def test_a_flood_of_invented_emails_pushes_out_its_own(database: Database) -> None:
    async with database.transaction(EVERYONE) as connection:
        for _ in range(3):
            await store.login_failures.add(connection, "victim", NOW)
        for number in range(10):
            await store.login_failures.add(connection, f"flood{number}", NOW + 1 + number)
        await store.login_failures.trim(connection, most=4)
        left = await connection.execute(sa.select(login_failures.c.email_key))
        assert set(left.scalars()) == {"victim", "flood7", "flood8", "flood9"}


async def test_a_refresh_token_is_spent_once(database: Database) -> None:
    async with database.transaction(EVERYONE) as connection:
        await add_user(connection)
        await store.refresh_tokens.add(connection, refresh_token(1))
        assert await store.refresh_tokens.spent(connection, "hash1") is None
        assert await store.refresh_tokens.spend(connection, "hash1", NOW) == refresh_token(1)
        assert await store.refresh_tokens.spend(connection, "hash1", NOW) is None
        assert await store.refresh_tokens.spent(connection, "hash1") == refresh_token(1)
        await store.refresh_tokens.add(connection, refresh_token(2, life=5))
        assert await store.refresh_tokens.spend(connection, "hash2", NOW + 5) is None
        assert await store.refresh_tokens.spent(connection, "hash2") is None


async def test_ending_a_login_leaves_others(database: Database) -> None:
    async with database.transaction(EVERYONE) as connection:
        await add_user(connection)
        for number, login in ((1, "lgn_1"), (2, "lgn_1"), (3, "lgn_2")):
            await store.refresh_tokens.add(connection, refresh_token(number, login))
        await store.refresh_tokens.delete_login(connection, "ten_2", "lgn_1")
        assert await store.refresh_tokens.is_known(connection, "hash1")
        await store.refresh_tokens.delete_login(connection, "ten_1", "lgn_1")
        known = [await store.refresh_tokens.is_known(connection, f"hash{n}") for n in (1, 2, 3)]
        assert known == [False, False, True]


async def test_api_keys_are_a_tenants_own(database: Database) -> None:
    async with database.transaction(EVERYONE) as connection:
        await add_user(connection, 1)
        await add_user(connection, 2)
        await store.api_keys.lock(connection, "ten_1")
        await store.api_keys.add(connection, api_key(1))
        await store.api_keys.add(connection, api_key(2, tenant=2))
        assert await store.api_keys.revoke(connection, "ten_1", "key_2", NOW) is None
        assert await store.api_keys.page(connection, "ten_1", NOW, 9, None) == [api_key(1)]
        assert not await store.api_keys.is_live(connection, "ten_1", "key_2", NOW)
        assert await store.api_keys.is_live(connection, "ten_2", "key_2", NOW)
        assert await store.api_keys.count(connection, "ten_2", NOW) == (1, 1)


async def test_what_is_revoked_or_expired_is_not_live(database: Database) -> None:
    async with database.transaction(EVERYONE) as connection:
        await add_user(connection)
        for number in (1, 2):
            await store.api_keys.add(connection, api_key(number))
        await store.api_keys.add(connection, api_key(3, life=5))
        assert await store.api_keys.revoke(connection, "ten_1", "key_1", NOW) == api_key(1)
        assert await store.api_keys.revoke(connection, "ten_1", "key_1", NOW) is None
        assert await store.api_keys.revoke(connection, "ten_1", "key_3", NOW + 5) is None
        live = [
            await store.api_keys.is_live(connection, "ten_1", f"key_{n}", NOW + 5)
            for n in (1, 2, 3)
        ]
        assert live == [False, True, False]
        assert await store.api_keys.count(connection, "ten_1", NOW) == (2, 3)
        assert await store.api_keys.count(connection, "ten_1", NOW + 5) == (1, 2)
        assert await store.api_keys.page(connection, "ten_1", NOW + 5, 9, None) == [api_key(2)]


async def test_pages_of_api_keys_meet_without_a_gap(database: Database) -> None:
    # Several were made in the same microsecond.
    keys = [api_key(number, made=NOW + number // 3) for number in range(9)]
    async with database.transaction(EVERYONE) as connection:
        await add_user(connection)
        for each in keys:
            await store.api_keys.add(connection, each)
        seen: list[ApiKey] = []
        after: tuple[int, str] | None = None
        for _ in range(5):
            page = await store.api_keys.page(connection, "ten_1", NOW, 2, after)
            seen += page
            after = (page[-1].create_time, page[-1].api_key_id)
    assert seen == keys[::-1]


async def test_revocations_come_once_in_order(database: Database) -> None:
    first, second = Revocation("a", NOW + 10), Revocation("b", NOW + 5)
    async with database.transaction(EVERYONE) as connection:
        assert await store.revocations.since(connection, 0, NOW) == ([], 0)
        await store.revocations.add(connection, first)
        found, last = await store.revocations.since(connection, 0, NOW)
        assert found == [first]
        await store.revocations.add(connection, first)
        await store.revocations.add(connection, second)
        assert (await store.revocations.since(connection, last, NOW))[0] == [second]
        assert (await store.revocations.since(connection, 0, NOW))[0] == [first, second]
        assert (await store.revocations.since(connection, 0, NOW + 5))[0] == [first]


async def test_a_number_is_not_used_again(database: Database) -> None:
    async with database.transaction(EVERYONE) as connection:
        await store.revocations.add(connection, Revocation("a", NOW + 1))
        _, last = await store.revocations.since(connection, 0, NOW)
        await store.revocations.purge(connection, NOW + 1)
        await store.revocations.add(connection, Revocation("b", NOW + 9))
        assert (await store.revocations.since(connection, last, NOW))[0] == [
            Revocation("b", NOW + 9)
        ]


async def test_a_generation_has_one_key(database: Database) -> None:
    key = SigningKey("kid_1", 1, "x", b"sealed", NOW, NOW)
    async with database.transaction(EVERYONE) as connection:
        await store.signing_keys.add(connection, key)
        await store.signing_keys.publish_until(connection, "kid_1", NOW + 9)
        await store.signing_keys.publish_until(connection, "kid_1", NOW + 5)
    other = SigningKey("kid_2", 1, "y", b"sealed", NOW, NOW)
    with pytest.raises(GenerationTaken):
        async with database.transaction(EVERYONE) as connection:
            await store.signing_keys.add(connection, other)
    async with database.read(EVERYONE) as connection:
        (kept,) = await store.signing_keys.every(connection)
    assert (kept.kid, kept.publish_until) == ("kid_1", NOW + 9)


async def test_retired_keys_lose_their_private_parts(database: Database) -> None:
    keys = [SigningKey(f"kid_{n}", n, "x", b"sealed", NOW, NOW + n) for n in (1, 2, 3, 4)]
    async with database.transaction(EVERYONE) as connection:
        for key in keys:
            await store.signing_keys.add(connection, key)
        await store.signing_keys.retire(connection, keys[2], NOW + 1)
        left = await store.signing_keys.every(connection)
        able = await store.signing_keys.able_to_sign(connection)
    assert [key.kid for key in left] == ["kid_2", "kid_3", "kid_4"]
    assert [key.kid for key in able] == ["kid_3", "kid_4"]


@pytest.mark.parametrize(
    "statement",
    ["UPDATE identity_audit_entries SET actor_id = 'me'", "DELETE FROM identity_audit_entries"],
)
async def test_the_audit_log_cannot_be_changed(database: Database, statement: str) -> None:
    entry = AuditEntry("aud_1", "ten_1", NOW, "user.login", "usr_1", "usr_1", "")
    async with database.transaction(EVERYONE) as connection:
        await store.audit.add(connection, entry)
    with pytest.raises((DBAPIError, PlexusError), match=r"append-only|cannot serve"):
        async with database.transaction(EVERYONE) as connection:
            await connection.execute(sa.text(statement))
    async with database.read(EVERYONE) as connection:
        assert await store.audit.page(connection, "ten_1", 9, None) == [entry]
        assert await store.audit.page(connection, "ten_2", 9, None) == []


async def test_expired_rows_go_and_others_stay(database: Database) -> None:
    past = clock.now() - 30 * DAY
    async with database.transaction(EVERYONE) as connection:
        await add_user(connection)
        for number in range(1_500):
            await store.refresh_tokens.add(connection, refresh_token(number, life=-1))
        await store.refresh_tokens.add(connection, refresh_token(9_999))
        await store.api_keys.add(connection, api_key(1, made=past))
        await store.api_keys.add(connection, api_key(2))
        await store.revocations.add(connection, Revocation("a", past))
        await store.login_failures.add(connection, "k", past)
    await purge(database, Replies(tables.replies, MasterKey(bytes(32))))
    async with database.read(EVERYONE) as connection:
        left = await connection.execute(sa.select(refresh_tokens.c.token_hash))
        assert list(left.scalars()) == ["hash9999"]
        for table, count in (("api_keys", 1), ("revocations", 0), ("login_failures", 0)):
            query = sa.text(f"SELECT count(*) FROM identity_{table}")
            assert (await connection.execute(query)).scalar_one() == count


async def test_the_schema_can_be_taken_back(database: Database) -> None:
    def downgrade(connection: sa.Connection) -> list[str]:
        import importlib.util

        from alembic.migration import MigrationContext
        from alembic.operations import Operations

        from tests.services.identity.conftest import MIGRATIONS

        for path in sorted(MIGRATIONS.glob("[0-9]*.py"), reverse=True):
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None and spec.loader is not None
            revision = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(revision)
            with Operations.context(MigrationContext.configure(connection)):
                revision.downgrade()
        return sa.inspect(connection).get_table_names()

    async with database.migrating("identity") as connection:
        assert connection is not None
        await add_user(connection)
        left = await connection.run_sync(downgrade)
    assert sorted(left) == ["identity_alembic_version", "identity_served_by"]
