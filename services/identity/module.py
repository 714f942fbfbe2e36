"""Where identity's objects meet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from argon2 import PasswordHasher
from plexus.identity.v1.identity_service_pb2_grpc import add_IdentityServiceServicer_to_server

from services.identity import tables, workers
from services.identity.service.accounts import Accounts
from services.identity.service.api_keys import ApiKeys
from services.identity.service.audit import AuditLog
from services.identity.service.logins import Logins
from services.identity.service.passwords import Passwords
from services.identity.service.revocations import RevocationWatch
from services.identity.service.signing import SigningKeys
from services.identity.servicer import IdentityServicer
from services.identity.settings import IdentitySettings
from services.runtime.module import ModuleContext
from services.runtime.replies import Replies


@asynccontextmanager
async def build(ctx: ModuleContext) -> AsyncIterator[None]:
    """Register the servicer and start the workers.

    Raises:
        MasterKeyError: The master key does not open the key that signs tokens.
        SchemaTooNew: A later version of this program wrote the tables.
    """
    settings = IdentitySettings()
    await ctx.migrate(Path(__file__).parent / "migrations")
    signing = SigningKeys(ctx.database, ctx.master_key, settings)
    await signing.rotate()
    await signing.check()
    passwords = await Passwords.start(
        PasswordHasher(
            time_cost=settings.argon2_passes,
            memory_cost=settings.argon2_memory_kib,
            parallelism=settings.argon2_lanes,
        )
    )
    revocations = RevocationWatch(ctx.database, ctx.shared.notices)
    replies = Replies(tables.replies, ctx.master_key)
    servicer = IdentityServicer(
        accounts=Accounts(ctx.database, passwords, settings),
        logins=Logins(
            ctx.database, passwords, signing, ctx.master_key, settings, ctx.shared.notices
        ),
        api_keys=ApiKeys(ctx.database, signing, ctx.shared.notices, replies),
        signing=signing,
        revocations=revocations,
        audit=AuditLog(ctx.database),
    )
    add_IdentityServiceServicer_to_server(servicer, ctx.server)
    ctx.tasks.keep_running(
        "identity.signing_keys", partial(workers.keep_rotating, signing, settings)
    )
    ctx.tasks.keep_running("identity.purge", partial(workers.keep_purging, ctx.database, replies))
    ctx.drains.append(revocations.end)
    try:
        yield
    finally:
        passwords.close()
