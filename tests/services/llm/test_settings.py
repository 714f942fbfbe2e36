"""The settings: what hangs together, and what is never shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.llm.domain.routing import Capability, Price
from services.llm.service.backends import about_key
from services.llm.settings import LlmSettings
from services.llm.shared import shared_providers
from services.runtime.crypto import MasterKey
from services.runtime.settings import UnusableSetting

KEY = "sk-very-secret"


def test_nothing_set_is_enough() -> None:
    settings = LlmSettings()
    assert settings.llm_url == ""
    assert settings.llm_context_window == 128_000


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"URL": "http://localhost:11434/v1"}, "PLEXUS_LLM_MODEL must name"),
        ({"URL": "localhost:11434", "MODEL": "tiny"}, "PLEXUS_LLM_URL must be"),
        ({"URL": "https://", "MODEL": "tiny"}, "PLEXUS_LLM_URL must be"),
        ({"URL": "http://[", "MODEL": "tiny"}, "llm_url"),
        ({"MAX_CONCURRENCY": "0"}, "llm_max_concurrency"),
    ],
)
def test_what_cannot_work_is_refused_and_the_key_not_shown(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], said: str
) -> None:
    for name, value in {"KEY": KEY, **values}.items():
        monkeypatch.setenv(f"PLEXUS_LLM_{name}", value)
    with pytest.raises(ValidationError) as raised:
        LlmSettings()
    assert said in str(raised.value)
    assert KEY not in str(raised.value)


def test_the_key_is_not_in_the_settings_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEXUS_LLM_KEY", KEY)
    settings = LlmSettings()
    assert KEY not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.llm_key.get_secret_value() == KEY


def test_every_setting_says_what_it_is() -> None:
    assert all(each.description for each in LlmSettings.model_fields.values())


MASTER = MasterKey(bytes(32))
LARGE = {
    "name": "large",
    "context_window": 32_000,
    "capabilities": ["tools", "json"],
    "price_input": 250_000,
    "price_output": 1_000_000,
    "quality": 0.8,
}


def shared_by(monkeypatch: pytest.MonkeyPatch, path: Path, listed: Any) -> Any:
    """The shared providers of a file with this in it."""
    path.write_text(listed if isinstance(listed, str) else json.dumps(listed))
    monkeypatch.setenv("PLEXUS_LLM_PROVIDERS_FILE", str(path))
    return shared_providers(LlmSettings(), MASTER)


def test_a_file_of_providers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    lab = {"name": "lab", "base_url": "http://10.0.0.7:8000/v1", "models": [LARGE]}
    monkeypatch.setenv("PLEXUS_LLM_URL", "http://127.0.0.1:11434/v1")
    monkeypatch.setenv("PLEXUS_LLM_MODEL", "llama")
    listed = [{**lab, "key_file": str(tmp_path / "key")}]
    found, aliases = shared_by(monkeypatch, tmp_path / "providers.json", listed)
    assert [each.name for each in found] == ["openai", "lab", "offline"]
    assert aliases == {"llama": "openai/llama"}
    assert all(each.shared and each.enabled for each in found)
    (model,) = found[1].models
    assert (model.context_window, model.price) == (32_000, Price(250_000, 1_000_000))
    assert model.capabilities == {Capability.TOOLS, Capability.JSON}
    assert KEY.encode() not in found[1].sealed_key
    assert MASTER.disclose(found[1].sealed_key, about_key("lab")) == KEY.encode()


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ("{", "is not JSON"),
        ({"name": "lab"}, "list"),
        ([{"name": "Lab", "base_url": "http://x/v1", "models": [LARGE]}], "name"),
        ([{"name": "lab", "base_url": "ftp://x", "models": [LARGE]}], "base_url"),
        ([{"name": "lab", "base_url": "http://x/v1", "models": []}], "models"),
        ([{"name": "lab", "base_url": "http://x/v1", "models": [LARGE], "key": KEY}], "key"),
        ([{"name": "offline", "base_url": "http://x/v1", "models": [LARGE]}], "twice"),
        (
            [{"name": "lab", "base_url": "http://x", "models": [{**LARGE, "capabilities": ["x"]}]}],
            "no capability",
        ),
        (
            [{"name": "lab", "base_url": "http://x", "models": [LARGE], "key_file": "/no/file"}],
            "cannot be read",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listed: Any, said: str
) -> None:
    with pytest.raises(UnusableSetting) as raised:
        shared_by(monkeypatch, tmp_path / "providers.json", listed)
    assert said in str(raised.value)
    assert KEY not in str(raised.value)
