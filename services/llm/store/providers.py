"""Providers and what they were."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Row, delete, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from services.llm.domain.configuration import Provider, ProviderLimits, ProviderModel, name_taken
from services.llm.tables import provider_versions, providers
from services.runtime.db import Connection

_MODELS = TypeAdapter(tuple[ProviderModel, ...])
_LIMITS = TypeAdapter(ProviderLimits)


async def add(connection: Connection, provider: Provider) -> None:
    """Keep a new provider.

    Raises:
        AlreadyExists: NAME_TAKEN. The transaction cannot go on.
    """
    try:
        await connection.execute(insert(providers), _columns(provider))
    except IntegrityError as error:
        raise name_taken("provider", provider.name) from error
    await _add_version(connection, provider)


async def replace(connection: Connection, provider: Provider) -> None:
    """Keep the next version of a provider."""
    same = providers.c.provider_id == provider.provider_id
    await connection.execute(update(providers).where(same).values(_columns(provider)))
    await _add_version(connection, provider)


async def _add_version(connection: Connection, provider: Provider) -> None:
    data = _columns(provider)
    del data["sealed_key"]
    keys = {name: data[name] for name in ("provider_id", "version", "tenant_id")}
    await connection.execute(insert(provider_versions), {**keys, "data": data})


async def get(
    connection: Connection, tenant_id: str, provider_id: str, *, lock: bool = False
) -> Provider | None:
    """A tenant's provider; locked, it stays as it is until the transaction ends."""
    query = select(providers).where(
        providers.c.tenant_id == tenant_id, providers.c.provider_id == provider_id
    )
    row = (await connection.execute(query.with_for_update() if lock else query)).first()
    return None if row is None else _provider(row)


async def get_version(
    connection: Connection, tenant_id: str, provider_id: str, version: int
) -> Provider | None:
    """A provider as it was, without its key."""
    query = select(provider_versions.c.data).where(
        provider_versions.c.tenant_id == tenant_id,
        provider_versions.c.provider_id == provider_id,
        provider_versions.c.version == version,
    )
    row = (await connection.execute(query)).first()
    return None if row is None else _of({**row.data, "sealed_key": b""})


async def all_of(connection: Connection, tenant_id: str) -> list[Provider]:
    """Every provider of a tenant, oldest first."""
    query = select(providers).where(providers.c.tenant_id == tenant_id)
    found = await connection.execute(query.order_by(providers.c.provider_id))
    return [_provider(row) for row in found]


async def page(
    connection: Connection, tenant_id: str, size: int, before: str | None
) -> list[Provider]:
    """A tenant's providers, newest first, from behind one."""
    query = select(providers).where(providers.c.tenant_id == tenant_id)
    if before:
        query = query.where(providers.c.provider_id < before)
    found = await connection.execute(query.order_by(providers.c.provider_id.desc()).limit(size))
    return [_provider(row) for row in found]


async def count(connection: Connection, tenant_id: str) -> int:
    """How many a tenant has."""
    query = select(func.count()).where(providers.c.tenant_id == tenant_id)
    return int((await connection.execute(query)).scalar_one())


async def remove(connection: Connection, tenant_id: str, provider_id: str) -> None:
    """Forget a provider and its key; what it was stays."""
    await connection.execute(
        delete(providers).where(
            tuple_(providers.c.tenant_id, providers.c.provider_id) == (tenant_id, provider_id)
        )
    )


async def sealed(connection: Connection) -> list[tuple[str, bytes]]:
    """The ids and sealed keys of all providers that have keys."""
    found = await connection.execute(select(providers.c.provider_id, providers.c.sealed_key))
    return [(row.provider_id, row.sealed_key) for row in found if row.sealed_key]


async def seal_again(connection: Connection, provider_id: str, old: bytes, new: bytes) -> None:
    """Put another seal on the same key, unless the key was changed meanwhile."""
    await connection.execute(
        update(providers)
        .where(providers.c.provider_id == provider_id, providers.c.sealed_key == old)
        .values(sealed_key=new)
    )


def _columns(provider: Provider) -> dict[str, Any]:
    return {
        **asdict(provider),
        "models": _MODELS.dump_python(provider.models, mode="json"),
        "limits": _LIMITS.dump_python(provider.limits, mode="json"),
    }


def _provider(row: Row[Any]) -> Provider:
    return _of(dict(row._mapping))


def _of(columns: dict[str, Any]) -> Provider:
    models = _MODELS.validate_python(columns["models"])
    limits = _LIMITS.validate_python(columns["limits"])
    return Provider(**{**columns, "models": models, "limits": limits})
