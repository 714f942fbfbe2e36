"""Kustomize, as far as deploy/ uses it, so that its result can be checked on any machine.

Whatever is used and not known here is refused rather than passed over. Where kubectl is installed,
a test compares this with the real one.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

# How lists are merged: by this key of their elements. Others are replaced whole.
_KEYS = {
    "containers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "topologySpreadConstraints": "topologyKey",
}
_KNOWN = {
    *("apiVersion", "kind", "resources", "components", "labels", "images"),
    *("configMapGenerator", "patches", "nameSuffix"),
}
# Where a name is referred to: the field, and the kind that is meant.
_REFERENCES = {"serviceAccountName": "ServiceAccount", "configMapRef": "ConfigMap"}


class Unsupported(Exception):
    """Something that this understands less of than kustomize does."""


def build(folder: Path) -> list[Json]:
    """What `kubectl kustomize <folder>` prints, in no particular order."""
    found = _accumulate(folder, [])
    for each in found:
        if each["kind"] == "ConfigMap":
            _rename(found, each, f"{each['metadata']['name']}-{_digest(each)}")
    return found


def documents(path: Path) -> list[Json]:
    """The documents of a YAML file."""
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def key(each: Json) -> tuple[str, str]:
    """The kind and name of an object."""
    return each["kind"], each["metadata"]["name"]


def _accumulate(folder: Path, found: list[Json]) -> list[Json]:
    (wanted,) = documents(folder / "kustomization.yaml")
    _refuse(wanted, _KNOWN, folder)
    for name in wanted.get("resources", []):
        path = folder / name
        found.extend(_accumulate(path, []) if path.is_dir() else documents(path))
    for made in wanted.get("configMapGenerator", []):
        _config_map(made, found, folder)
    for name in wanted.get("components", []):
        found = _accumulate(folder / name, found)
    for patch in wanted.get("patches", []):
        _patch(patch, found, folder)
    for each in found if "nameSuffix" in wanted else ():
        _rename(found, each, each["metadata"]["name"] + wanted["nameSuffix"])
    for pairs in wanted.get("labels", []):
        _label(pairs, found, folder)
    for image in wanted.get("images", []):
        _image(image, found, folder)
    names = [key(each) for each in found]
    if len(set(names)) != len(names):
        raise Unsupported(f"{folder}: two objects of one name")
    return found


def _refuse(given: Json, known: set[str], where: Path) -> None:
    unknown = given.keys() - known
    if unknown:
        raise Unsupported(f"{where}: {', '.join(sorted(unknown))}")


def _config_map(made: Json, found: list[Json], folder: Path) -> None:
    _refuse(made, {"name", "literals", "behavior"}, folder)
    data = dict(each.split("=", 1) for each in made["literals"])
    same = [each for each in found if key(each) == ("ConfigMap", made["name"])]
    behavior = made.get("behavior", "create")
    if behavior == "merge" and same:
        same[0]["data"].update(data)
    elif behavior == "create" and not same:
        metadata = {"name": made["name"]}
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    else:
        raise Unsupported(f"{folder}: a ConfigMap with behavior {behavior}")


def _digest(config_map: Json) -> str:
    """The end of a generated name, by kustomize's own recipe."""
    text = json.dumps(
        {"data": config_map["data"], "kind": "ConfigMap", "name": ""},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    )
    for plain, escaped in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
        text = text.replace(plain, escaped)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return digest.translate(str.maketrans("013ae", "ghkmt"))


def _rename(found: list[Json], renamed: Json, name: str) -> None:
    kind, old = key(renamed)
    renamed["metadata"]["name"] = name
    for each in found:
        for field, holder in _fields(each):
            if _REFERENCES.get(field) != kind:
                continue
            if holder[field] == old:
                holder[field] = name
            elif isinstance(holder[field], dict) and holder[field].get("name") == old:
                holder[field]["name"] = name


def _fields(value: Any) -> Iterator[tuple[str, Json]]:
    """Each field in a tree, with the mapping that holds it."""
    if isinstance(value, dict):
        for name in list(value):
            yield name, value
            yield from _fields(value[name])
    elif isinstance(value, list):
        for each in value:
            yield from _fields(each)


def _patch(patch: Json, found: list[Json], folder: Path) -> None:
    _refuse(patch, {"path", "target"}, folder)
    target = patch.get("target", {})
    _refuse(target, {"kind", "labelSelector"}, folder)
    (change,) = documents(folder / patch["path"])
    change = {name: part for name, part in change.items() if name not in ("apiVersion", "kind")}
    del change["metadata"]["name"]
    hits = [each for each in found if _targeted(target, each)]
    if not hits:
        raise Unsupported(f"{folder}: {patch['path']} changes nothing")
    for each in hits:
        _merge(each, copy.deepcopy(change))


def _targeted(target: Json, each: Json) -> bool:
    if each["kind"] != target["kind"]:
        return False
    selector = target.get("labelSelector", "")
    if not selector:
        return True
    name, sign, wanted = selector.partition("=")
    if not sign or any(mark in selector for mark in ",!()"):
        raise Unsupported(f"the label selector {selector}")
    labels: Json = each["metadata"].get("labels", {})
    return bool(labels.get(name) == wanted)


def _merge(base: Json, change: Json) -> None:
    for name, value in change.items():
        if value is None or name.startswith("$"):
            raise Unsupported(f"a patch that deletes {name}")
        there = base.get(name)
        if isinstance(there, dict) and isinstance(value, dict):
            _merge(there, value)
        elif isinstance(there, list) and name in _KEYS:
            _merge_lists(there, value, _KEYS[name])
        else:
            base[name] = value


def _merge_lists(base: list[Json], change: list[Json], by: str) -> None:
    for value in change:
        same = [each for each in base if each[by] == value[by]]
        if same:
            _merge(same[0], value)
        else:
            base.append(value)


def _label(labels: Json, found: list[Json], folder: Path) -> None:
    _refuse(labels, {"pairs", "includeTemplates"}, folder)
    for each in found:
        each["metadata"].setdefault("labels", {}).update(labels["pairs"])
        template = each.get("spec", {}).get("template")
        if labels.get("includeTemplates") and template:
            template.setdefault("metadata", {}).setdefault("labels", {}).update(labels["pairs"])


def _image(image: Json, found: list[Json], folder: Path) -> None:
    _refuse(image, {"name", "newName", "newTag"}, folder)

    def renamed(text: str) -> str:
        name, _, tag = text.partition(":")
        if name != image["name"]:
            return text
        return f"{image.get('newName', name)}:{image.get('newTag', tag)}"

    _each_container(found, lambda container: container.update(image=renamed(container["image"])))


def _each_container(found: list[Json], change: Callable[[Json], None]) -> None:
    for each in found:
        for container in pod(each).get("containers", []):
            change(container)


def pod(each: Json) -> Json:
    """The pod's specification inside an object; empty where it has none."""
    spec: Json = each.get("spec", {}).get("template", {}).get("spec", {})
    return spec
