"""The installation for one machine: compose.yaml, its secrets and its telemetry."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from services.app import MODULES
from services.runtime.interceptors import telemetry
from services.runtime.settings import Settings
from tests.deploy.common import DEPLOY, packaged_json, settings, strangers, version

Json = dict[str, Any]
_SCHEMA = "builtin_schemas/vendor/compose-spec.json"
_ROLES = {"migrate": ["migrate"], "gateway": ["gateway"]} | {
    module: ["serve", "--group", module] for module in MODULES
}
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<sign>[-?])(?P<rest>[^}]*))?\}")


def compose(name: str = "compose.yaml") -> Json:
    loaded: Json = yaml.safe_load((DEPLOY / name).read_text())
    return loaded


def problems(document: Json) -> list[str]:
    schema = Draft202012Validator(packaged_json("check_jsonschema", _SCHEMA))
    return [f"{each.json_path}: {each.message}" for each in schema.iter_errors(document)]


@pytest.fixture
def services() -> dict[str, Json]:
    found: dict[str, Json] = compose()["services"]
    return found


@pytest.mark.parametrize("name", ["compose.yaml", "compose.dashboards.yaml"])
def test_it_is_valid(name: str) -> None:
    assert problems(compose(name)) == []


def test_the_schema_finds_a_mistake() -> None:
    wrong = compose()
    wrong["services"]["redis"]["health_check"] = {}
    assert problems(wrong)


def test_a_service_for_each_module(services: dict[str, Json]) -> None:
    roles = {name: each["command"] for name, each in services.items() if name in _ROLES}
    assert roles == _ROLES
    images = {services[name]["image"] for name in _ROLES}
    assert images == {f"${{IMAGE:-plexus:{version()}}}"}


def test_every_variable_is_a_setting_and_no_secret_is_literal(services: dict[str, Json]) -> None:
    for role in _ROLES:
        for name in services[role]["environment"]:
            assert name in settings(), f"{role} sets {name}, which nothing reads"
            assert not settings()[name], f"{role} holds {name}: it is for a file"
        files = (
            {name for name in services[role]["secrets"] if name.startswith("PLEXUS_")}
            if ("secrets" in services[role])
            else set()
        )
        assert all(settings()[name] for name in files)


def test_what_must_be_set_is_set(services: dict[str, Json]) -> None:
    for module in MODULES:
        there = services[module]["environment"]
        assert there["PLEXUS_GROUPS"] == ",".join(MODULES)
        assert there["PLEXUS_ADDRESS"] == "{group}:50051"
        assert there["PLEXUS_LISTEN"] == "0.0.0.0:50051"
        assert there["PLEXUS_HEALTH_LISTEN"] == "0.0.0.0:50050"
        secrets = set(services[module]["secrets"])
        assert {"master.key", "PLEXUS_DATABASE_URL", "PLEXUS_REDIS_URL"} <= secrets
        assert there["PLEXUS_MASTER_KEY_FILE"] == "/run/secrets/master.key"
    gateway = services["gateway"]
    assert gateway["environment"]["PLEXUS_ADDRESS"] == "{group}:50051"
    assert "secrets" not in gateway, "it needs none"
    assert services["migrate"]["secrets"] == ["PLEXUS_DATABASE_OWNER_URL"]
    holders = [name for name, each in services.items() if "PLEXUS_DATABASE_OWNER_URL" in str(each)]
    assert holders == ["migrate"]


def test_only_the_gateway_is_published_and_on_loopback(services: dict[str, Json]) -> None:
    published = {name: each["ports"] for name, each in services.items() if "ports" in each}
    assert published == {"gateway": ["127.0.0.1:${PLEXUS_PORT:-8080}:8080"]}
    assert services["gateway"]["environment"]["PLEXUS_PORT"] == "8080"
    (port,) = compose("compose.dashboards.yaml")["services"]["grafana"]["ports"]
    assert port.startswith("127.0.0.1:")
    outside = {name for name, each in compose()["networks"].items() if not each.get("internal")}
    leading = {name for name, each in services.items() if outside & set(each["networks"])}
    assert leading == {"gateway", "llm", "ingest"}


def test_containers_are_fenced_in(services: dict[str, Json]) -> None:
    for name, each in services.items():
        assert each["read_only"] is True, name
        assert each["cap_drop"] == ["ALL"], name
        assert "cap_add" not in each
        assert each["security_opt"] == ["no-new-privileges:true"], name
        assert not each.keys() & {"privileged", "network_mode", "pid", "ipc"}, name
        limits = each["deploy"]["resources"]["limits"]
        assert limits.keys() == {"cpus", "memory", "pids"}, name
        image = _VARIABLE.sub(lambda found: found["rest"], each["image"])
        assert re.fullmatch(r".+:v?\d[\w.-]*", image), f"{image} is no fixed release"
        for volume in each.get("volumes", ()):
            source, _, rest = volume.partition(":")
            if source.startswith("."):
                assert rest.endswith(":ro")
                assert (DEPLOY / source).exists(), source
            else:
                assert source in compose()["volumes"]


def test_each_start_waits_for_what_it_needs(services: dict[str, Json]) -> None:
    for name, each in services.items():
        for needed, how in each.get("depends_on", {}).items():
            disabled = services[needed].get("healthcheck", {}).get("disable", False)
            healthy = how["condition"] == "service_healthy"
            assert not (healthy and disabled), f"{name} waits for the health of {needed}"
    for module in MODULES:
        needs = services[module]["depends_on"]
        assert needs["migrate"]["condition"] == "service_completed_successfully"
        assert services["gateway"]["depends_on"][module]["condition"] == "service_healthy"
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for role in _ROLES:
        grace = float(services[role]["stop_grace_period"].removesuffix("s"))
        drain = services[role]["environment"].get("PLEXUS_DRAIN_SECONDS", "0")
        assert grace >= float(drain) + 15


def test_names_that_look_like_settings_are_settings() -> None:
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file() and "secrets" not in path.relative_to(DEPLOY).parts:
            assert strangers(path.read_text()) == set(), path


def made_secrets(folder: Path) -> tuple[Path, str]:
    """Run secrets.sh on its own in a folder; returns where the secrets are, and what it said."""
    if not (folder / "secrets.sh").exists():
        shutil.copy(DEPLOY / "secrets.sh", folder)
    done = subprocess.run(
        [folder / "secrets.sh"], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stderr == ""
    return folder / "secrets", done.stdout


def test_secrets_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    secrets, said = made_secrets(tmp_path)
    first = {path.name: path.read_bytes() for path in secrets.iterdir()}
    wanted = {Path(each["file"]).name for each in compose()["secrets"].values()}
    assert first.keys() == wanted
    used = {
        each if isinstance(each, str) else each["source"]
        for service in compose()["services"].values()
        for each in service.get("secrets", ())
    }
    assert used == compose()["secrets"].keys()
    assert len(first["master.key"]) == 32
    assert all(path.stat().st_mode & 0o077 == 0 for path in (secrets, *secrets.iterdir()))
    uid, gid = (os.getuid(), os.getgid()) if os.getuid() else (10001, 10001)
    assert (tmp_path / ".env").read_text() == f"OWNER_UID={uid}\nOWNER_GID={gid}\n"
    assert {path.stat().st_uid for path in (secrets, *secrets.iterdir())} == {uid}
    # A password in the output would end in somebody's log.
    passwords = [first[name].decode().strip() for name in first if name.startswith("postgres_")]
    assert len({*passwords, first["grafana_admin"].decode().strip()}) == len(passwords) + 1
    assert not [each for each in passwords if each in said]
    again, _ = made_secrets(tmp_path)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == first


def test_the_program_takes_the_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets, _ = made_secrets(tmp_path)
    program = tmp_path / "bin"
    program.mkdir()
    shown = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    for name in ("python", "plexus"):
        (program / name).write_text(f'#!/bin/sh\nexec python3 -c "{shown}" {name} "$@"\n')
        (program / name).chmod(0o755)
    said = {}
    for role in ("serve --group llm", "migrate", "gateway", "up", "call --list", ""):
        done = subprocess.run(
            [DEPLOY / "image" / "entrypoint.sh", *role.split()],
            env={"PATH": f"{program}:{os.environ['PATH']}", "SECRETS_DIR": str(secrets)},
            capture_output=True,
            text=True,
            check=True,
        )
        said[role], environment = json.loads(done.stdout)
        assert environment["PLEXUS_INSTANCE"] == os.uname().nodename
    assert said["serve --group llm"] == ["python", "-m", "services", "serve", "--group", "llm"]
    assert said["migrate"] == ["python", "-m", "services", "migrate"]
    assert said["gateway"] == ["python", "-m", "services", "gateway"]
    assert [said["up"], said["call --list"]] == [["plexus", "up"], ["plexus", "call", "--list"]]
    for name in [each for each in environment if each.startswith("PLEXUS_")]:
        monkeypatch.setenv(name, environment[name])
    read = Settings()
    plain, owner = read.database_url.get_secret_value(), read.database_owner_url.get_secret_value()
    assert re.fullmatch(r"postgresql://plexus:[0-9a-f]{48}@postgres:5432/plexus", plain)
    assert re.fullmatch(r"postgresql://plexus_owner:[0-9a-f]{48}@postgres:5432/plexus", owner)
    password = (secrets / "redis.conf").read_text().split()[1]
    assert read.redis_url.get_secret_value() == f"redis://:{password}@redis:6379/0"


def test_telemetry_arrives_where_it_is_looked_for(services: dict[str, Json]) -> None:
    folder = DEPLOY / "telemetry"
    collector, tempo, grafana = (
        yaml.safe_load((folder / f"{name}.yaml").read_text())
        for name in ("collector", "tempo", "grafana")
    )
    for kind in ("receivers", "processors", "exporters"):
        used = {n for each in collector["service"]["pipelines"].values() for n in each[kind]}
        assert used == collector[kind].keys(), kind
    exporters = collector["exporters"]
    assert exporters["otlphttp/prometheus"]["endpoint"] == "http://prometheus:9090/api/v1/otlp"
    assert "--web.enable-otlp-receiver" in services["prometheus"]["command"]
    heard = tempo["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    assert exporters["otlp/tempo"]["endpoint"] == f"tempo:{heard.rpartition(':')[2]}"
    sources = {each["uid"]: each["url"] for each in grafana["datasources"]}
    assert sources == {
        "prometheus": "http://prometheus:9090",
        "tempo": f"http://tempo:{tempo['server']['http_listen_port']}",
    }
    # Prometheus writes the name of a histogram in its own way, with the unit spelt out.
    assert telemetry.__file__ is not None
    assert '"rpc.server.duration", unit="ms"' in Path(telemetry.__file__).read_text()
    for path in (folder / "dashboards").glob("*.json"):
        board = json.loads(path.read_text())
        expressions = [one["expr"] for panel in board["panels"] for one in panel["targets"]]
        named = set(re.findall(r"\b[a-z_]+(?=\{)", " ".join(expressions)))
        metric = "rpc_server_duration_milliseconds"
        assert named == {f"{metric}_count", f"{metric}_bucket"}
        assert {panel["datasource"]["uid"] for panel in board["panels"]} <= sources.keys()
