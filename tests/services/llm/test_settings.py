"""The settings: what hangs together, and what is never shown."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.llm.settings import LlmSettings

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
