"""Tenants' providers: made, changed, removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from services.llm import store
from services.llm.domain.configuration import (
    MAX_PROVIDERS,
    Provider,
    ProviderLimits,
    ProviderModel,
    in_use,
    key_hint,
    name_taken,
    require_distinct,
    require_etag,
    require_own,
    too_many,
)
from services.llm.service.backends import about_key
from services.llm.service.catalogue import Catalogue
from services.runtime import clock
from services.runtime.context import Principal
from services.runtime.crypto import MasterKey
from services.runtime.db import Connection, Database
from services.runtime.egress import Egress
from services.runtime.errors import InvalidRequest, NotFound, Unavailable
from services.runtime.ids import new_id
from services.runtime.replies import Repeatable, Replies


@dataclass(frozen=True, slots=True)
class Change:
    """What an update sets; None leaves it."""

    base_url: str | None = None
    api_key: str | None = None
    models: tuple[ProviderModel, ...] | None = None
    limits: ProviderLimits | None = None
    enabled: bool | None = None
    etag: str = ""


class Providers:
    """The providers of every tenant."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        egress: Egress,
        master_key: MasterKey,
        replies: Replies,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._egress = egress
        self._master_key = master_key
        self._replies = replies

    @property
    def shared(self) -> Sequence[Provider]:
        """The operator's."""
        return self._catalogue.shared

    async def get(self, who: Principal, provider_id: str, version: int) -> Provider:
        """One, as it is or was in a version.

        Raises:
            NotFound: There is no such provider, or version.
        """
        async with self._database.read() as connection:
            found = self._shared(provider_id) or await store.providers.get(
                connection, who.tenant_id, provider_id
            )
            if found is not None and version not in (0, found.version):
                found = await store.providers.get_version(
                    connection, who.tenant_id, provider_id, version
                )
        if found is None:
            raise NotFound.of("provider")
        return found

    async def page(self, who: Principal, size: int, before: str | None) -> list[Provider]:
        """The shared ones, then the tenant's own, newest first, from behind one of them."""
        names = [each.provider_id for each in self.shared]
        start = names.index(before) + 1 if before in names else 0 if not before else len(names)
        page = list(self.shared[start : start + size])
        if len(page) < size:
            behind = None if before in names else before
            async with self._database.read() as connection:
                page += await store.providers.page(
                    connection, who.tenant_id, size - len(page), behind
                )
        return page

    async def create(
        self,
        who: Principal,
        name: str,
        base_url: str,
        api_key: str,
        models: tuple[ProviderModel, ...],
        limits: ProviderLimits,
        call: Repeatable,
    ) -> Provider:
        """Make one.

        Raises:
            AlreadyExists: NAME_TAKEN, or the idempotency key stands for another request.
            InvalidRequest: ADDRESS_REFUSED, or a model is named twice.
            ResourceExhausted: The tenant has as many as it can have.
        """
        require_distinct(models)
        if any(each.name == name for each in self.shared):
            raise name_taken("provider", name)
        async with self._database.read() as connection:
            kept = await self._kept(connection, who, call)
        if kept is not None:
            return kept
        await self._judge(base_url)
        provider_id = new_id("prv")
        provider = Provider(
            provider_id=provider_id,
            tenant_id=who.tenant_id,
            name=name,
            base_url=base_url,
            sealed_key=self._sealed(api_key, provider_id),
            key_hint=key_hint(api_key),
            models=models,
            limits=limits,
            enabled=True,
            version=1,
            update_time=clock.now(),
            updated_by=who.actor_id,
        )
        async with self._database.transaction() as connection:
            kept = await self._kept(connection, who, call)
            if kept is not None:
                return kept
            if await store.providers.count(connection, who.tenant_id) >= MAX_PROVIDERS:
                raise too_many("providers", "providers", MAX_PROVIDERS)
            await store.providers.add(connection, provider)
            await self._replies.keep(connection, call, provider_id.encode())
        self._catalogue.forget(who.tenant_id)
        return provider

    async def _kept(
        self, connection: Connection, who: Principal, call: Repeatable
    ) -> Provider | None:
        first = await self._replies.find(connection, call)
        if first is None:
            return None
        provider_id = first.decode()
        return await store.providers.get(
            connection, who.tenant_id, provider_id
        ) or await store.providers.get_version(connection, who.tenant_id, provider_id, 1)

    async def update(self, who: Principal, provider_id: str, change: Change) -> Provider:
        """Make the next version of one.

        Raises:
            NotFound: There is no such provider.
            Aborted: It changed since the etag was read.
            PermissionDenied: It is shared.
            InvalidRequest: ADDRESS_REFUSED, or a new address comes without a key.
        """
        shared = self._shared(provider_id)
        if shared is not None:
            require_own(shared)
        require_distinct(change.models or ())
        if change.base_url is not None:
            await self._judge(change.base_url)
        async with self._database.transaction() as connection:
            old = await store.providers.get(connection, who.tenant_id, provider_id, lock=True)
            if old is None:
                raise NotFound.of("provider")
            new = self._changed(old, change)
            if new == old:
                return old
            require_etag(change.etag, old.etag)
            new = replace(
                new, version=old.version + 1, update_time=clock.now(), updated_by=who.actor_id
            )
            await store.providers.replace(connection, new)
        self._catalogue.forget(who.tenant_id)
        return new

    def _changed(self, old: Provider, change: Change) -> Provider:
        moved = change.base_url is not None and change.base_url != old.base_url
        if moved and old.sealed_key and change.api_key is None:
            # Or whoever may change an address could have the key sent to one of theirs.
            raise InvalidRequest.field("api_key", "must be given again with another base_url")
        new = replace(
            old,
            base_url=old.base_url if change.base_url is None else change.base_url,
            models=old.models if change.models is None else change.models,
            limits=old.limits if change.limits is None else change.limits,
            enabled=old.enabled if change.enabled is None else change.enabled,
        )
        if change.api_key is None or self._is(old, change.api_key):
            return new
        sealed = self._sealed(change.api_key, old.provider_id)
        return replace(new, sealed_key=sealed, key_hint=key_hint(change.api_key))

    async def delete(self, who: Principal, provider_id: str) -> None:
        """Remove one, and its key.

        Raises:
            NotFound: There is no such provider.
            PermissionDenied: It is shared.
            FailedPrecondition: IN_USE: a route names it.
        """
        shared = self._shared(provider_id)
        if shared is not None:
            require_own(shared)
        async with self._database.transaction() as connection:
            old = await store.providers.get(connection, who.tenant_id, provider_id, lock=True)
            if old is None:
                raise NotFound.of("provider")
            for route in await store.routes.all_of(connection, who.tenant_id):
                named = (each.model.partition("/")[0] for each in route.plan.candidates)
                if old.name in named:
                    raise in_use(old.name, route.name)
            await store.providers.remove(connection, who.tenant_id, provider_id)
        self._catalogue.forget(who.tenant_id)

    def _shared(self, provider_id: str) -> Provider | None:
        return next((each for each in self.shared if each.provider_id == provider_id), None)

    async def _judge(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise InvalidRequest.field("base_url", "must be an http or https address")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            await self._egress.address(parts.hostname, port)
        except Unavailable as error:
            raise InvalidRequest(
                error.message, reason="ADDRESS_REFUSED", metadata={"host": parts.hostname[:200]}
            ) from error

    def _sealed(self, api_key: str, provider_id: str) -> bytes:
        if not api_key:
            return b""
        return self._master_key.enclose(api_key.encode(), about_key(provider_id))

    def _is(self, provider: Provider, api_key: str) -> bool:
        if not provider.sealed_key:
            return not api_key
        about = about_key(provider.provider_id)
        return self._master_key.disclose(provider.sealed_key, about) == api_key.encode()
