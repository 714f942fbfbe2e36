"""The operator's providers, which all tenants share: of the settings, of a file, and built in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from services.llm.domain.configuration import (
    OFFLINE,
    Provider,
    ProviderLimits,
    ProviderModel,
    key_hint,
)
from services.llm.domain.routing import Capability, Price
from services.llm.providers.extractive import NAME, WINDOW
from services.llm.service.backends import about_key
from services.llm.settings import LlmSettings
from services.runtime.crypto import MasterKey
from services.runtime.settings import UnusableSetting

_OPENAI = "openai"
_MAX_FILE = 1_048_576
_Tokens = Annotated[int, Field(ge=0, le=10_000_000)]
_Micros = Annotated[int, Field(ge=0, le=1_000_000_000_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Model(_Strict):
    name: str = Field(min_length=1, max_length=150, pattern="^[!-~]+$")
    context_window: _Tokens = 0
    max_output_tokens: _Tokens = 0
    price_input: _Micros = 0
    price_output: _Micros = 0
    capabilities: set[str] = Field(default_factory=set)
    quality: float = Field(0.0, ge=0, le=1)


class _Provider(_Strict):
    name: str = Field(pattern="^[a-z0-9][a-z0-9-]{0,39}$")
    base_url: str = Field(max_length=500, pattern="^https?://[^/]")
    key_file: Path | None = None
    models: list[_Model] = Field(min_length=1, max_length=200)
    max_concurrency: int = Field(0, ge=0, le=1000)
    silence_seconds: float = Field(0.0, ge=0, le=3600)


_FILE = TypeAdapter(list[_Provider])


def shared_providers(
    settings: LlmSettings, master_key: MasterKey
) -> tuple[list[Provider], dict[str, str]]:
    """The providers, the default one first, and other names of their models.

    Raises:
        UnusableSetting: The file cannot be used.
    """
    found: list[Provider] = []
    aliases: dict[str, str] = {}
    if settings.llm_url:
        model = ProviderModel(
            settings.llm_model,
            context_window=settings.llm_context_window,
            price=Price(settings.llm_price_input, settings.llm_price_output),
            capabilities=_capabilities(set(settings.llm_capabilities.replace(",", " ").split())),
        )
        limits = ProviderLimits(settings.llm_max_concurrency, settings.llm_silence_seconds)
        key = settings.llm_key.get_secret_value()
        found.append(_made(_OPENAI, settings.llm_url, key, (model,), limits, master_key))
        aliases[settings.llm_model] = f"{_OPENAI}/{settings.llm_model}"
    if settings.llm_providers_file is not None:
        found += [_of(each, master_key) for each in _read(settings.llm_providers_file)]
    offline = ProviderModel(NAME.partition("/")[2], context_window=WINDOW)
    found.append(_made(OFFLINE, "", "", (offline,), ProviderLimits(), master_key))
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise UnusableSetting(f"a provider's name is there twice: {', '.join(sorted(names))}")
    return found, aliases


def _read(path: Path) -> list[_Provider]:
    try:
        text = path.read_bytes()
        if len(text) > _MAX_FILE:
            raise UnusableSetting(f"{path} is larger than {_MAX_FILE // 1024} KiB")
        return _FILE.validate_python(json.loads(text))
    except OSError as error:
        raise UnusableSetting(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        # pydantic's own text shows the input, and the input may hold keys.
        wrong = error.errors(include_input=False, include_url=False)
        told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in wrong)
        raise UnusableSetting(f"{path}: {told}") from None
    except ValueError:
        raise UnusableSetting(f"{path} is not JSON") from None


def _of(each: _Provider, master_key: MasterKey) -> Provider:
    key = ""
    if each.key_file is not None:
        try:
            key = SecretStr(each.key_file.read_text("ascii").strip()).get_secret_value()
        except (OSError, ValueError):
            raise UnusableSetting(f"the key of {each.name!r} cannot be read") from None
    models = tuple(
        ProviderModel(
            name=model.name,
            context_window=model.context_window,
            max_output_tokens=model.max_output_tokens,
            price=Price(model.price_input, model.price_output),
            capabilities=_capabilities(model.capabilities),
            quality=model.quality,
        )
        for model in each.models
    )
    limits = ProviderLimits(each.max_concurrency, each.silence_seconds)
    return _made(each.name, each.base_url, key, models, limits, master_key)


def _made(
    name: str,
    base_url: str,
    key: str,
    models: tuple[ProviderModel, ...],
    limits: ProviderLimits,
    master_key: MasterKey,
) -> Provider:
    return Provider(
        provider_id=name,
        tenant_id="",
        name=name,
        base_url=base_url,
        sealed_key=master_key.enclose(key.encode(), about_key(name)) if key else b"",
        key_hint=key_hint(key),
        models=models,
        limits=limits,
        enabled=True,
        version=1,
        update_time=0,
        updated_by="",
    )


def _capabilities(names: set[str]) -> frozenset[Capability]:
    try:
        return frozenset(Capability[each.upper()] for each in names)
    except KeyError as error:
        known = ", ".join(each.name.lower() for each in Capability)
        raise UnusableSetting(f"{error} is no capability; these are: {known}") from None
