"""docs/settings.md has every setting as the code has it."""

from __future__ import annotations

import importlib
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from services.runtime.settings import PlexusSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "settings.md"


def rows() -> list[str]:
    """A row of the table for each setting, by the classes that read them."""
    found = []
    for path in sorted((ROOT / "services").rglob("settings.py")):
        module = importlib.import_module(
            str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
        )
        for each in vars(module).values():
            if (
                isinstance(each, type)
                and issubclass(each, PlexusSettings)
                and each.__module__ == module.__name__
            ):
                found += [row(name, field) for name, field in each.model_fields.items()]
    return found


def row(name: str, field: FieldInfo) -> str:
    default = field.default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    shown = f"`{default}`" if str(default) else "empty"
    return f"| `PLEXUS_{name.upper()}` | {shown} | {field.description} |"


def test_every_setting_is_on_the_page() -> None:
    wanted = rows()
    page = [line for line in PAGE.read_text().splitlines() if line.startswith("| `PLEXUS_")]
    assert page == wanted, "the table of docs/settings.md should be:\n" + "\n".join(wanted)
    assert len(wanted) > 20
    assert not [line for line in wanted if line.endswith("| None |")]
