"""What the checks of deploy/ share: the settings that the code has, and the files there."""

from __future__ import annotations

import importlib
import importlib.resources
import json
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from pydantic import SecretStr
from referencing import Registry, Resource

from services.runtime.settings import PlexusSettings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
# What the command line reads besides; services/cli/settings.py is no settings class.
_CLI = {"PLEXUS_URL", "PLEXUS_TOKEN"}


@cache
def settings() -> dict[str, bool]:
    """Every setting of the code by its variable, and whether its value is a secret."""
    found = {}
    for path in sorted((ROOT / "services").rglob("settings.py")):
        name = str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
        for each in vars(importlib.import_module(name)).values():
            if isinstance(each, type) and issubclass(each, PlexusSettings):
                for field, about in each.model_fields.items():
                    found[f"PLEXUS_{field.upper()}"] = about.annotation is SecretStr
    return found


def strangers(text: str) -> set[str]:
    """Names in a text that look like settings and are none."""
    named = set(re.findall(r"\bPLEXUS_[A-Z][A-Z_]*\b", text))
    return named - settings().keys() - _CLI


def version() -> str:
    """The release, as pyproject.toml has it."""
    project: Mapping[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["version"]


def packaged_json(package: str, path: str) -> Any:
    """A JSON file out of an installed package."""
    return json.loads(importlib.resources.files(package).joinpath(path).read_text())


@cache
def kubernetes_schema(release: str, name: str) -> Draft202012Validator:
    """What checks objects of one kind for one release of Kubernetes; unknown fields are wrong."""
    schema = packaged_json("kubernetes_validate", f"{_schemas(release)}/{name}.json")
    return Draft202012Validator(schema, registry=_definitions(release))


@cache
def _definitions(release: str) -> Registry[Any]:
    """What the schemas of a release refer to."""
    definitions = packaged_json("kubernetes_validate", f"{_schemas(release)}/_definitions.json")
    return Resource.from_contents(definitions) @ Registry()


def _schemas(release: str) -> str:
    return f"kubernetes-json-schema/v{release}.0-local-strict"
