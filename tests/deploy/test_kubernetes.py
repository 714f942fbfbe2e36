"""What deploy/kubernetes makes of itself, as a cluster would be given it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from services.app import MODULES
from tests.deploy.common import DEPLOY, kubernetes_schema, settings, version
from tests.deploy.kustomize import Json, build, documents, key, pod

FOLDER = DEPLOY / "kubernetes"
# The oldest release that is meant to work, and the newest that the schemas know.
RELEASES = ("1.30", "1.37")


@pytest.fixture(params=["single", "ha"])
def objects(request: pytest.FixtureRequest) -> list[Json]:
    """All objects of an overlay."""
    return build(FOLDER / "overlays" / request.param)


def of_kind(objects: list[Json], *kinds: str) -> list[Json]:
    found = [each for each in objects if each["kind"] in kinds]
    assert found, f"no {kinds} at all"
    return found


def one(objects: list[Json], kind: str, name: str) -> Json:
    (found,) = [each for each in objects if key(each) == (kind, name)]
    return found


def container(each: Json) -> Json:
    (found,) = pod(each)["containers"]
    assert isinstance(found, dict)
    return found


def environment(each: Json, objects: list[Json]) -> dict[str, str | Json]:
    """The variables of an object's container: their values, or where those come from."""
    found: dict[str, str | Json] = {}
    for source in container(each).get("envFrom", []):
        found |= one(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container(each).get("env", []):
        found[variable["name"]] = variable.get("value", variable.get("valueFrom"))
    return found


def selected(selector: Json, objects: list[Json]) -> list[str]:
    """The names of the objects whose pods a selector selects."""
    found = []
    for each in of_kind(objects, "Deployment", "Job"):
        labels = each["spec"]["template"]["metadata"]["labels"]
        wanted = selector.get("matchLabels", {}).items()
        terms = selector.get("matchExpressions", [])
        assert all(term["operator"] == "In" for term in terms)
        if wanted <= labels.items() and all(
            labels.get(term["key"]) in term["values"] for term in terms
        ):
            found.append(each["metadata"]["name"])
    return sorted(found)


def modules_named() -> list[str]:
    return sorted(f"plexus-{module}" for module in MODULES)


def test_every_object_is_valid(objects: list[Json]) -> None:
    for release in RELEASES:
        for each in objects:
            if each["apiVersion"].startswith("cert-manager.io/"):
                continue
            group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", each["apiVersion"])
            schema = kubernetes_schema(release, f"{each['kind'].lower()}-{group}")
            problems = [f"{one.json_path}: {one.message}" for one in schema.iter_errors(each)]
            assert not problems, key(each)


def test_the_schemas_find_a_mistake() -> None:
    (wrong,) = [
        each for each in documents(FOLDER / "base/gateway.yaml") if each["kind"] == "Service"
    ]
    wrong["spec"]["ports"][0]["targetPorts"] = "http"
    with pytest.raises(jsonschema.ValidationError, match="targetPorts"):
        kubernetes_schema("1.30", "service-v1").validate(wrong)


def test_every_file_is_part_of_an_overlay_or_a_component() -> None:
    named = set()
    for path in FOLDER.rglob("kustomization.yaml"):
        (wanted,) = documents(path)
        for name in (*wanted.get("resources", []), *(p["path"] for p in wanted.get("patches", []))):
            named.add((path.parent / name).resolve())
    files = {path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml"}
    assert files - named == set()


def test_a_deployment_and_a_service_for_each_module(objects: list[Json]) -> None:
    names = [each["metadata"]["name"] for each in of_kind(objects, "Deployment")]
    assert sorted(names) == sorted([*modules_named(), "plexus-gateway"])
    for module in MODULES:
        deployment = one(objects, "Deployment", f"plexus-{module}")
        assert container(deployment)["args"] == ["serve", "--group", module]
        service = one(objects, "Service", f"plexus-{module}")
        assert service["spec"]["clusterIP"] == "None", "callers must see every pod"
    assert container(one(objects, "Deployment", "plexus-gateway"))["args"] == ["gateway"]
    (job,) = of_kind(objects, "Job")
    assert container(job)["args"] == ["migrate"]


def test_selectors_match_what_they_mean(objects: list[Json]) -> None:
    for each in of_kind(objects, "Deployment"):
        assert selected(each["spec"]["selector"], objects) == [each["metadata"]["name"]]
    for each in of_kind(objects, "Service"):
        meant = selected({"matchLabels": each["spec"]["selector"]}, objects)
        assert meant == [each["metadata"]["name"]]
    for each in of_kind(objects, "NetworkPolicy"):
        # An empty selector would be the whole namespace, strangers included.
        assert each["spec"]["podSelector"], key(each)
        for rule in (*each["spec"].get("ingress", ()), *each["spec"].get("egress", ())):
            peers = [*rule.get("from", ()), *rule.get("to", ())]
            for peer in [peer["podSelector"] for peer in peers if "podSelector" in peer]:
                assert selected(peer, objects), key(each)
    for each in of_kind(objects, "Deployment"):
        for spread in pod(each)["topologySpreadConstraints"]:
            assert each["metadata"]["name"] in selected(spread["labelSelector"], objects)


def test_references_lead_somewhere(objects: list[Json]) -> None:
    for each in of_kind(objects, "Deployment", "Job"):
        account = one(objects, "ServiceAccount", pod(each)["serviceAccountName"])
        assert account["automountServiceAccountToken"] is False
        mounted = {mount["name"] for mount in container(each)["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod(each)["volumes"]}


def test_every_variable_is_a_setting_and_no_secret_is_literal(objects: list[Json]) -> None:
    for each in of_kind(objects, "Deployment", "Job"):
        for name, value in environment(each, objects).items():
            assert name in settings(), f"{key(each)} sets {name}, which nothing reads"
            if settings()[name]:
                assert isinstance(value, dict), f"{key(each)} holds {name}"
                assert "secretKeyRef" in value
    assert not [each for each in objects if each["kind"] == "Secret"]


def test_what_must_be_set_in_a_cluster_is_set(objects: list[Json]) -> None:
    everywhere = {"PLEXUS_INSTANCE"}
    mesh = everywhere | {"PLEXUS_GROUPS", "PLEXUS_ADDRESS", "PLEXUS_DRAIN_SECONDS"}
    module = mesh | {
        *("PLEXUS_LISTEN", "PLEXUS_HEALTH_LISTEN", "PLEXUS_MASTER_KEY_FILE"),
        *("PLEXUS_DATABASE_URL", "PLEXUS_REDIS_URL"),
    }
    owner = "PLEXUS_DATABASE_OWNER_URL"
    for each in of_kind(objects, "Deployment"):
        there = environment(each, objects)
        gateway = each["metadata"]["name"] == "plexus-gateway"
        wanted = mesh | {"PLEXUS_HOST", "PLEXUS_PORT"} if gateway else module
        assert wanted <= there.keys(), key(each)
        assert owner not in there, "only the migration may change tables"
        assert there["PLEXUS_INSTANCE"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        assert there["PLEXUS_GROUPS"] == ",".join(MODULES)
        assert there["PLEXUS_ADDRESS"] == "plexus-{group}:50051"
        assert gateway == ("PLEXUS_MASTER_KEY_FILE" not in there), "the gateway needs no key"
    (job,) = of_kind(objects, "Job")
    assert everywhere | {owner} <= environment(job, objects).keys()
    # A generated name changes with what it holds, and a Job cannot be changed.
    assert "envFrom" not in container(job)


def test_ports_agree(objects: list[Json]) -> None:
    for each in of_kind(objects, "Deployment"):
        there = environment(each, objects)
        ports = {port["name"]: port["containerPort"] for port in container(each)["ports"]}
        if each["metadata"]["name"] == "plexus-gateway":
            assert ports == {"http": int(str(there["PLEXUS_PORT"]))}
        else:
            heard = {"grpc": there["PLEXUS_LISTEN"], "health": there["PLEXUS_HEALTH_LISTEN"]}
            assert ports == {name: int(str(at).rpartition(":")[2]) for name, at in heard.items()}
            assert str(there["PLEXUS_ADDRESS"]).endswith(f":{ports['grpc']}")
        service = one(objects, "Service", each["metadata"]["name"])
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports
            # Behind a headless Service, callers use the port of the container itself.
            if service["spec"].get("clusterIP") == "None":
                assert port["port"] == ports[port["targetPort"]]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            (how,) = container(each)[probe].keys() & {"grpc", "httpGet", "tcpSocket"}
            wanted = ports["health"] if how == "grpc" else ports["http"]
            assert container(each)[probe][how]["port"] == wanted


def opened(objects: list[Json], name: str, direction: str) -> Iterator[tuple[Json, Json]]:
    """Rules that open something for a Deployment's pods, each with its policy."""
    for each in of_kind(objects, "NetworkPolicy"):
        if name in selected(each["spec"]["podSelector"], objects):
            for rule in each["spec"].get(direction, ()):
                yield each, rule


def test_the_network_lets_through_what_is_needed(objects: list[Json]) -> None:
    modules = modules_named()
    everyone = [
        *modules,
        "plexus-gateway",
        *(j["metadata"]["name"] for j in of_kind(objects, "Job")),
    ]
    deny = one(objects, "NetworkPolicy", "plexus-deny")["spec"]
    assert sorted(deny["policyTypes"]) == ["Egress", "Ingress"]
    assert not deny.keys() & {"ingress", "egress"}
    assert selected(deny["podSelector"], objects) == sorted(everyone)

    def ports(name: str, direction: str) -> set[int]:
        rules = [rule for _, rule in opened(objects, name, direction)]
        assert all(rule.get("ports") for rule in rules), "a rule without ports opens all"
        return {port["port"] for rule in rules for port in rule["ports"]}

    stores = {5432, 6379, 6333}
    world = {"plexus-llm": {443}, "plexus-ingest": {80, 443, 993, 995}}
    for module in modules:
        assert ports(module, "ingress") == {50051}
        outside = world.get(module, set())
        assert ports(module, "egress") == {53, 50051, 4317} | stores | outside
        callers = [
            each
            for _, rule in opened(objects, module, "ingress")
            for peer in rule["from"]
            for each in selected(peer["podSelector"], objects)
        ]
        assert sorted(callers) == sorted([*modules, "plexus-gateway"])
    assert ports("plexus-gateway", "ingress") == {8080}
    assert ports("plexus-gateway", "egress") == {53, 50051, 4317}
    (job,) = of_kind(objects, "Job")
    assert ports(job["metadata"]["name"], "egress") == {53, 5432}


def test_pods_are_fenced_in(objects: list[Json]) -> None:
    for each in of_kind(objects, "Deployment", "Job"):
        spec = pod(each)
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        fence = spec["securityContext"]
        assert fence["runAsNonRoot"] is True
        assert fence["runAsUser"] > 0
        assert fence["seccompProfile"] == {"type": "RuntimeDefault"}
        inner = container(each)["securityContext"]
        assert inner["readOnlyRootFilesystem"] is True
        assert inner["allowPrivilegeEscalation"] is False
        assert inner["capabilities"] == {"drop": ["ALL"]}
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
        assert all(volume.keys() & {"emptyDir", "secret"} for volume in spec["volumes"])
        resources = container(each)["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys()
        assert "memory" in resources["limits"]
        for volume in spec["volumes"]:
            assert volume.get("secret", {}).get("defaultMode", 0o440) == 0o440


def test_a_stop_has_time(objects: list[Json]) -> None:
    for each in of_kind(objects, "Deployment"):
        drain = float(str(environment(each, objects)["PLEXUS_DRAIN_SECONDS"]))
        pause = container(each).get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        needed = pause.get("seconds", 0) + drain + 15
        assert pod(each)["terminationGracePeriodSeconds"] >= needed, key(each)


def test_one_image_of_this_release(objects: list[Json]) -> None:
    images = {container(each)["image"] for each in of_kind(objects, "Deployment", "Job")}
    assert images == {f"plexus:{version()}"}
    (job,) = of_kind(objects, "Job")
    assert job["metadata"]["name"] == f"plexus-migrate-{version().replace('.', '-')}"
    assert job["spec"]["ttlSecondsAfterFinished"] > 0


def test_the_available_overlay_survives_a_node() -> None:
    objects = build(FOLDER / "overlays" / "ha")
    for each in of_kind(objects, "Deployment"):
        name = each["metadata"]["name"]
        scaler = one(objects, "HorizontalPodAutoscaler", name)["spec"]
        assert scaler["scaleTargetRef"]["name"] == name
        assert scaler["minReplicas"] >= 2
        assert "replicas" not in each["spec"], "the autoscaler's to say"
        budget = one(objects, "PodDisruptionBudget", name)["spec"]
        assert selected(budget["selector"], objects) == [name]
        assert budget["maxUnavailable"] == 1


def test_mutual_tls_is_mounted_where_it_is_read() -> None:
    objects = build(FOLDER / "overlays" / "ha")
    certificate = one(objects, "Certificate", "plexus")
    assert certificate["apiVersion"] == "cert-manager.io/v1"
    assert certificate["spec"]["dnsNames"] == ["plexus"]
    assert {"server auth", "client auth"} <= set(certificate["spec"]["usages"])
    issuers = {each["metadata"]["name"] for each in of_kind(objects, "Issuer")}
    for each in of_kind(objects, "Certificate"):
        assert each["spec"]["issuerRef"]["name"] in issuers
    for each in of_kind(objects, "Deployment"):
        (volume,) = [one for one in pod(each)["volumes"] if one["name"] == "tls"]
        assert volume["secret"]["secretName"] == certificate["spec"]["secretName"]
        files = {item["path"] for item in volume["secret"]["items"]}
        assert files == {"ca.pem", "cert.pem", "key.pem"}
        mounts = {mount["name"]: mount for mount in container(each)["volumeMounts"]}
        # Without subPath: what is renewed appears.
        assert mounts["tls"].keys() == {"name", "mountPath", "readOnly"}
        assert environment(each, objects)["PLEXUS_TLS_DIR"] == mounts["tls"]["mountPath"]


def test_the_readme_tells_of_every_secret() -> None:
    readme = (DEPLOY / "README.md").read_text()
    for overlay in ("single", "ha"):
        for each in of_kind(build(Path(FOLDER / "overlays" / overlay)), "Deployment", "Job"):
            for variable in container(each).get("env", []):
                source = variable.get("valueFrom", {}).get("secretKeyRef")
                if source:
                    assert f"`{source['name']}`" in readme
                    assert f"`{source['key']}`" in readme
            for volume in pod(each)["volumes"]:
                if "secret" in volume:
                    assert f"`{volume['secret']['secretName']}`" in readme
