"""Replacing the master key: in steps, so that every process knows a key before another uses it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from services.identity.service.signing import about as about_signing_key
from services.identity.store import signing_keys
from services.identity.tables import replies as identity_replies
from services.ingest import store as ingest
from services.ingest.service.sources import about as about_source
from services.ingest.tables import replies as ingest_replies
from services.llm.service.backends import about_key
from services.llm.service.kept import about as about_answer
from services.llm.store import answers, providers
from services.llm.tables import replies as llm_replies
from services.memory.tables import replies as memory_replies
from services.runtime.crypto import MasterKey, MasterKeyError
from services.runtime.db import EVERYONE, open_database
from services.runtime.replies import Replies
from services.runtime.settings import Settings


async def step(settings: Settings, name: str, say: Callable[[str], None]) -> None:
    """Take one step; the text says which one is next.

    Raises:
        MasterKeyError: The file cannot be used, or a key is still needed.
        OSError: It cannot be written.
        Unavailable: The database cannot be asked.
    """
    path = settings.master_key
    keys = MasterKey.keys_in(path)
    if name == "add":
        MasterKey.replace(path, [*keys, secrets.token_bytes(len(keys[0]))])
        say("Added. Restart every process, so that all know it; then: master-key use")
    elif name == "use":
        if len(keys) == 1:
            raise MasterKeyError("there is one key alone: add another first (master-key add)")
        MasterKey.replace(path, [keys[-1], *keys[:-1]])
        say("The next start uses it. Restart every process; a day later: master-key forget")
    else:
        if needed := await _needed(settings, keys[:1]):
            raise MasterKeyError(
                f"an older key still opens {needed[0]} and {len(needed) - 1} more: processes that "
                "know the new one seal keys again within the hour, and answers are kept for a day"
            )
        MasterKey.replace(path, keys[:1])
        say("Forgotten. Restart every process, so that none has it in memory.")


async def _needed(settings: Settings, keys: Sequence[bytes]) -> list[str]:
    """What these keys do not open."""
    master_key = MasterKey(b"".join(keys))
    database = open_database(settings)
    try:
        async with database.of("identity").read(EVERYONE) as connection:
            signing = await signing_keys.able_to_sign(connection)
            replies = await Replies(identity_replies, master_key).oldest(connection)
        async with database.of("llm").read(EVERYONE) as connection:
            sealed = await providers.sealed(connection)
            kept = await answers.oldest(connection)
            replies += await Replies(llm_replies, master_key).oldest(connection)
        async with database.of("ingest").read(EVERYONE) as connection:
            secret = await ingest.sources.sealed(connection)
            replies += await Replies(ingest_replies, master_key).oldest(connection)
        async with database.of("memory").read(EVERYONE) as connection:
            replies += await Replies(memory_replies, master_key).oldest(connection)
    finally:
        await database.close()
    found = {about_signing_key(key.kid): key.sealed_private_key for key in signing}
    found |= {about_key(provider_id): envelope for provider_id, envelope in sealed}
    found |= {about_source(source_id): envelope for source_id, envelope in secret}
    # What was kept later was sealed later: the oldest speaks for all, and is gone within a day.
    found |= {about_answer(tenant_id): answer for tenant_id, answer in kept} | dict(replies)
    return [name for name, each in found.items() if not _opens(master_key, each, name)]


def _opens(master_key: MasterKey, sealed: bytes, about: str) -> bool:
    in_envelope = about.startswith(("llm/provider/", "ingest/source/"))
    opens = master_key.disclose if in_envelope else master_key.open
    try:
        opens(sealed, about)
    except MasterKeyError:
        return False
    return True
