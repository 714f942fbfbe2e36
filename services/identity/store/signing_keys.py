"""The keys that sign tokens, generation after generation."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, case, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from services.identity.domain import SigningKey
from services.identity.tables import signing_keys
from services.runtime.db import Connection


class GenerationTaken(Exception):
    """Another process made the key of this generation. The transaction cannot go on."""


async def every(connection: Connection) -> list[SigningKey]:
    """All keys, the newest last."""
    found = await connection.execute(select(signing_keys).order_by(signing_keys.c.generation))
    return [_key(row) for row in found]


async def able_to_sign(connection: Connection) -> list[SigningKey]:
    """The keys that have their private parts still, the newest last."""
    found = await connection.execute(
        select(signing_keys)
        .where(signing_keys.c.sealed_private_key != b"")
        .order_by(signing_keys.c.generation)
    )
    return [_key(row) for row in found]


async def add(connection: Connection, key: SigningKey) -> None:
    """Keep a new key.

    Raises:
        GenerationTaken: There is one of this generation.
    """
    try:
        await connection.execute(
            insert(signing_keys).values(
                kid=key.kid,
                generation=key.generation,
                public_key=key.public_key,
                sealed_private_key=key.sealed_private_key,
                sign_from=key.sign_from,
                publish_until=key.publish_until,
            )
        )
    except IntegrityError as error:
        raise GenerationTaken from error


async def seal_again(connection: Connection, kid: str, old: bytes, new: bytes) -> None:
    """Put another seal on the same key, unless it changed meanwhile."""
    await connection.execute(
        update(signing_keys)
        .where(signing_keys.c.kid == kid, signing_keys.c.sealed_private_key == old)
        .values(sealed_private_key=new)
    )


async def publish_until(connection: Connection, kid: str, time: int) -> None:
    """Keep a key published until `time` at least."""
    await connection.execute(
        update(signing_keys)
        .where(signing_keys.c.kid == kid)
        .values(
            publish_until=case(
                (signing_keys.c.publish_until < time, time), else_=signing_keys.c.publish_until
            )
        )
    )


async def retire(connection: Connection, current: SigningKey, now: int) -> None:
    """Erase the private parts of the keys before the current one; drop those nobody needs."""
    before = signing_keys.c.generation < current.generation
    await connection.execute(
        delete(signing_keys).where(before, signing_keys.c.publish_until <= now)
    )
    await connection.execute(
        update(signing_keys)
        .where(before, signing_keys.c.sealed_private_key != b"")
        .values(sealed_private_key=b"")
    )


def _key(row: Row[Any]) -> SigningKey:
    return SigningKey(
        kid=row.kid,
        generation=row.generation,
        public_key=row.public_key,
        sealed_private_key=row.sealed_private_key,
        sign_from=row.sign_from,
        publish_until=row.publish_until,
    )
