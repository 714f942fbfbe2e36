"""The stand-in for kustomize does what kustomize does, and refuses what it does not know."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.common import DEPLOY
from tests.deploy.kustomize import Unsupported, build, key

OVERLAYS = sorted(path.parent for path in (DEPLOY / "kubernetes").glob("overlays/*/*ization.yaml"))


def without_order(value: Any) -> Any:
    """A document whose lists are compared as sets: kustomize puts what it merges in front."""
    if isinstance(value, dict):
        return {name: without_order(each) for name, each in value.items()}
    if isinstance(value, list):
        inner = [without_order(each) for each in value]
        return sorted(inner, key=lambda each: json.dumps(each, sort_keys=True))
    return value


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl to compare with")
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_it_agrees_with_kubectl(overlay: Path) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", overlay], capture_output=True, text=True, check=True
    )
    theirs = {key(each): without_order(each) for each in yaml.safe_load_all(done.stdout)}
    ours = {key(each): without_order(each) for each in build(overlay)}
    assert ours == theirs
    assert len(ours) > 20


CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\n"


@pytest.mark.parametrize(
    "text",
    [
        "namespace: elsewhere",
        "replacements: []",
        "configMapGenerator: [{name: a, files: [a]}]",
        "configMapGenerator: [{name: a, behavior: merge, literals: [a=b]}]",
        "images: [{name: a, digest: b}]",
        "labels: [{pairs: {a: b}, includeSelectors: true}]",
        "resources: [a.yaml, a.yaml]",
        "patches: [{path: a.yaml, target: {kind: Deployment}}]",
        "patches: [{patch: '- op: remove', target: {kind: ConfigMap}}]",
    ],
)
def test_what_it_does_not_know_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(CONFIG_MAP)
    (tmp_path / "kustomization.yaml").write_text(text)
    with pytest.raises(Unsupported):
        build(tmp_path)


def test_a_patch_that_deletes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(CONFIG_MAP)
    (tmp_path / "b.yaml").write_text("metadata: {name: any}\ndata: {a: null}\n")
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [a.yaml]\npatches: [{path: b.yaml, target: {kind: ConfigMap}}]"
    )
    with pytest.raises(Unsupported):
        build(tmp_path)
