"""The OpenAPI document: whole, true to the contracts, and readable by others' tools."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import protovalidate
import pytest

from gateway import openapi
from proto.tools.descriptors import Contracts
from proto.tools.generate import descriptor_set
from proto.tools.json_schema import WELL_KNOWN, Schemas
from tests.contract.conftest import copy_contracts

Json = dict[str, Any]
PLANTED = Path(__file__).parent / "planted" / "rest.proto"
VERBS = {"get", "put", "post", "delete", "patch", "head", "options", "trace"}
TYPES = {"string", "integer", "number", "boolean", "object", "array", "null"}


@pytest.fixture(scope="module")
def document(compiled: Path) -> Json:
    """Today's document."""
    return dict(json.loads(openapi.render(compiled)))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """The document with bindings that today's contracts do not have."""
    scratch = tmp_path_factory.mktemp("planted")
    roots = copy_contracts(scratch)
    (roots / "plexus" / "planted").mkdir()
    (roots / "plexus" / "planted" / "rest.proto").write_text(PLANTED.read_text())
    descriptor_set(roots, scratch / "planted.binpb")
    return dict(json.loads(openapi.render(scratch / "planted.binpb")))


@pytest.fixture(params=["document", "planted"])
def either(request: pytest.FixtureRequest) -> Json:
    """What holds for any document holds for both."""
    return dict(request.getfixturevalue(request.param))


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            yield path, verb, operation


def nodes(value: Any) -> Iterator[Json]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from nodes(each)


def schemas(document: Json) -> Iterator[Json]:
    """Every schema, however deep."""
    waiting = list(document["components"]["schemas"].values())
    for node in nodes([document["paths"], document["components"]["responses"]]):
        if isinstance(node.get("schema"), dict):
            waiting.append(node["schema"])
    while waiting:
        schema = waiting.pop()
        yield schema
        waiting.extend(schema.get("properties", {}).values())
        waiting.extend(schema[key] for key in ("items", "not", "propertyNames") if key in schema)
        if isinstance(schema.get("additionalProperties"), dict):
            waiting.append(schema["additionalProperties"])
        for key in ("allOf", "anyOf", "oneOf"):
            waiting.extend(schema.get(key, ()))


def test_the_frame_is_openapi_3_1(either: Json) -> None:
    assert re.fullmatch(r"3\.1\.\d", either["openapi"])
    assert set(either) == {"openapi", "info", "servers", "tags", "paths", "components"}
    assert {"title", "version"} <= set(either["info"])
    assert set(either["components"]) == {"schemas", "responses", "securitySchemes"}
    for names in either["components"].values():
        assert all(re.fullmatch(r"[a-zA-Z0-9._-]+", name) for name in names)


def test_every_reference_resolves(either: Json) -> None:
    references = [node["$ref"] for node in nodes(either) if "$ref" in node]
    assert references
    for reference in references:
        assert reference.startswith("#/"), reference
        target: Any = either
        for part in reference.removeprefix("#/").split("/"):
            assert part in target, reference
            target = target[part]


def test_every_schema_uses_keywords_as_json_schema_means_them(either: Json) -> None:
    for schema in schemas(either):
        kinds = schema.get("type", [])
        assert {*(kinds if isinstance(kinds, list) else [kinds])} <= TYPES
        for key in ("minLength", "maxLength", "minItems", "maxItems", "maxProperties"):
            assert isinstance(schema.get(key, 0), int)
        for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            assert key not in schema or kinds in ("integer", "number")
        if "pattern" in schema:
            re.compile(schema["pattern"])
        for name in schema.get("required", ()):
            members = [each for each in (schema, *schema.get("allOf", ())) if "properties" in each]
            assert not members or any(name in each["properties"] for each in members)


def test_every_operation_is_whole(either: Json) -> None:
    tags = {tag["name"] for tag in either["tags"]}
    seen = set()
    for path, verb, operation in operations(either):
        assert path.startswith("/")
        assert verb in VERBS
        assert operation["summary"]
        assert set(operation["tags"]) <= tags
        assert operation["security"] in ([], [{"bearer": []}])
        assert operation["x-plexus-deadline-seconds"] > 0
        assert {"200", "default"} == set(operation["responses"])
        assert all(
            reply.get("content") or "$ref" in reply for reply in operation["responses"].values()
        )
        assert operation["operationId"] not in seen
        seen.add(operation["operationId"])


def test_parameters_fit_their_paths(either: Json) -> None:
    for path, verb, operation in operations(either):
        parameters = operation.get("parameters", [])
        names = [(each["in"], each["name"]) for each in parameters]
        assert len(names) == len(set(names))
        assert all(
            set(each) <= {"name", "in", "required", "schema", "description"} for each in parameters
        )
        in_path = {each["name"] for each in parameters if each["in"] == "path"}
        assert in_path == set(re.findall(r"\{([^}]+)\}", path))
        assert all(each["required"] for each in parameters if each["in"] == "path")
        assert verb not in ("get", "delete") or "requestBody" not in operation


def test_no_two_paths_are_the_same_to_a_router(either: Json) -> None:
    shapes = [re.sub(r"\{[^}]+\}", "{}", path) for path in either["paths"]]
    assert len(shapes) == len(set(shapes))


def test_every_binding_is_there_and_nothing_else(contracts: Contracts, document: Json) -> None:
    bound = {
        (binding.template, binding.verb, f"{method.containing_service.full_name}/{method.name}")
        for method in contracts.methods()
        for binding in contracts.bindings(method)
    }
    assert bound == {
        (path, verb, operation["x-plexus-rpc"]) for path, verb, operation in operations(document)
    }


def test_access_is_the_policys(contracts: Contracts, document: Json) -> None:
    policies = {
        f"{method.containing_service.full_name}/{method.name}": contracts.policy(method)
        for method in contracts.methods()
    }
    for _, _, operation in operations(document):
        policy = policies[operation["x-plexus-rpc"]]
        assert policy is not None
        assert policy.access != "internal"
        assert (operation["security"] == []) == (policy.access == "public")
        assert operation.get("x-plexus-permission", "") == policy.permission
        assert operation.get("x-plexus-role", "") == policy.role
        assert operation["x-plexus-deadline-seconds"] == policy.deadline


def test_required_is_what_the_validator_requires(contracts: Contracts) -> None:
    """The rules as we read them agree with the validator that the runtime asks."""
    validator = protovalidate.Validator()
    documented = Schemas(contracts)
    for message in contracts.messages():
        empty = contracts.message_class(message.full_name)()
        refused = {
            violation.proto.field.elements[0].field_name  # type: ignore[union-attr]
            for violation in validator.collect_violations(empty)
        }
        # Of a group one is required, and no field by itself.
        refused -= {group.name for group in message.oneofs}
        required = {field.name for field in message.fields if documented.required(field)}
        assert required == refused, message.full_name


def test_the_same_contracts_give_the_same_text(compiled: Path) -> None:
    text = openapi.render(compiled)
    assert text == openapi.render(compiled)
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_a_body_carries_its_rules(document: Json) -> None:
    operation = document["paths"]["/v1/users/register"]["post"]
    assert operation["operationId"] == "IdentityService_RegisterUser"
    assert operation["security"] == []
    assert operation["x-plexus-reasons"] == ["EMAIL_TAKEN", "REGISTRATION_CLOSED"]
    assert operation["requestBody"]["required"]
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    request = document["components"]["schemas"][reference.rpartition("/")[2]]
    assert request["required"] == ["email", "password", "display_name"]
    assert request["properties"]["email"] == {
        "type": "string",
        "format": "email",
        "maxLength": 254,
        "description": "Compared without regard to case.",
    }
    assert request["properties"]["password"]["x-plexus-sensitive"]
    assert request["properties"]["password"]["minLength"] == 8


def test_a_stream_is_an_event_stream(document: Json) -> None:
    operation = document["paths"]["/v1/runs/{run_id}/events"]["get"]
    assert operation["responses"]["200"]["content"] == {
        "text/event-stream": {"schema": {"$ref": "#/components/schemas/plexus.agents.v1.RunEvent"}}
    }
    assert [(each["name"], each["in"], each["required"]) for each in operation["parameters"]] == [
        ("run_id", "path", True),
        ("after_sequence", "query", False),
    ]
    assert operation["parameters"][1]["schema"]["type"] == "string"
    assert operation["x-plexus-permission"] == "runs.read"
    event = document["components"]["schemas"]["plexus.agents.v1.RunEvent"]
    assert event["x-plexus-oneof"]["event"][0] == "run_started"
    assert event["properties"]["time"]["format"] == "date-time"
    # Which member comes is open to newer ones, so none of those known may be there.
    assert "not" in event["oneOf"][-1]


def test_an_additional_binding_has_an_id_of_its_own(document: Json) -> None:
    ids = [
        document["paths"][path]["get"]["operationId"]
        for path in ("/v1/health", "/v1/monitor/health")
    ]
    assert ids == ["MonitorService_WatchHealth", "MonitorService_WatchHealth_2"]


def test_an_enum_travels_by_name_without_its_zero(document: Json) -> None:
    components = document["components"]["schemas"]
    assert "AUTHOR_ROLE_AGENT" in components["plexus.history.v1.AuthorRole"]["enum"]
    assert (
        "- `AUTHOR_ROLE_AGENT`: The agent."
        in (components["plexus.history.v1.AuthorRole"]["description"])
    )
    role = components["plexus.llm.v1.ModelMessage"]["properties"]["role"]
    assert role["$ref"].endswith("plexus.llm.v1.MessageRole")
    assert role["not"] == {"enum": ["MESSAGE_ROLE_UNSPECIFIED"]}


def test_an_error_has_its_reasons(contracts: Contracts, document: Json) -> None:
    components = document["components"]["schemas"]
    reason = components["google.rpc.ErrorInfo"]["properties"]["reason"]
    enum = contracts.pool.FindEnumTypeByName("plexus.errors.v1.ErrorReason")
    assert len(reason["examples"]) == len(enum.values) - 1
    assert "- `SESSION_BUSY`: ABORTED." in reason["description"]
    assert components["google.rpc.Status"]["properties"]["details"]["type"] == "array"


def test_remarks_to_linters_are_left_out(either: Json) -> None:
    assert "lint:ignore" not in json.dumps(either)
    assert "policy:ignore" not in json.dumps(either)


def test_a_query_holds_what_the_gateway_can_read(planted: Json) -> None:
    operation = planted["paths"]["/v1/planted/{place.region}/{name}:search"]["get"]
    assert operation["operationId"] == "v2_RestService_Search"
    assert operation["x-plexus-deadline-seconds"] == 0.5
    found = {each["name"]: each for each in operation["parameters"]}
    # No map, no list of messages, no message within itself.
    assert list(found) == [
        *("place.region", "name", "place.distance", "words", "since", "after", "limit"),
        *("digest", "exact", "fuzzy", "kind"),
    ]
    assert found["place.distance"]["schema"] == {
        "type": "number",
        "format": "double",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 9.5,
    }
    assert found["words"]["schema"] == {
        "type": "array",
        "items": {"type": "string", "minLength": 1},
        "maxItems": 9,
    }
    assert found["since"]["description"] == "At least 7."
    assert found["since"]["required"]
    assert found["after"]["description"] == "In the past."
    assert found["limit"]["schema"] == WELL_KNOWN["google.protobuf.Duration"]
    assert found["digest"]["schema"]["maxLength"] == 44
    assert found["kind"]["schema"]["enum"] == ["a", "b"]


def test_a_body_holds_what_the_path_leaves(planted: Json) -> None:
    whole = planted["paths"]["/v1/planted:search"]["post"]["requestBody"]
    assert whole["content"]["application/json"]["schema"]["$ref"].endswith("v2.SearchRequest")
    request = planted["components"]["schemas"]["plexus.planted.v2.SearchRequest"]
    assert request["oneOf"] == [{"required": ["exact"]}, {"required": ["fuzzy"]}]
    assert request["properties"]["weights"] == {
        "type": "object",
        "additionalProperties": {"type": "integer", "format": "int32", "minimum": 1},
        "maxProperties": 3,
        "propertyNames": {"maxLength": 8},
    }

    one_field = planted["paths"]["/v1/planted/{name}"]["patch"]
    assert one_field["requestBody"] == {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/plexus.planted.v2.Place.Body"}
            }
        },
    }
    assert "since" in {each["name"] for each in one_field["parameters"]}
    reply = one_field["responses"]["200"]["content"]["application/json"]["schema"]
    assert reply["type"] == "array"


def test_a_body_has_no_properties_but_its_own_and_a_reply_may_gain_some(planted: Json) -> None:
    schemas_ = planted["components"]["schemas"]
    assert schemas_["plexus.planted.v2.SearchRequest"]["additionalProperties"] is False
    # Replies hold it too, and they may grow.
    of_body, of_reply = (schemas_[f"plexus.planted.v2.Place{end}"] for end in (".Body", ""))
    assert of_body["additionalProperties"] is False
    assert of_body["properties"]["within"]["$ref"].endswith("v2.Place.Body")
    assert of_reply["properties"]["within"]["$ref"].endswith("v2.Place")
    assert "additionalProperties" not in of_reply
    assert "additionalProperties" not in schemas_["google.rpc.Status"]


def test_a_body_in_the_path_alone_need_not_be_sent(document: Json) -> None:
    body = document["paths"]["/v1/runs/{run_id}:cancel"]["post"]["requestBody"]
    assert not body["required"]
    assert body["content"]["application/json"]["schema"]["properties"] == {}


def test_an_http_body_is_opaque(planted: Json) -> None:
    path = planted["paths"]["/v1/planted/pass"]
    assert path["post"]["requestBody"]["content"] == {"*/*": {"schema": {}}}
    assert path["get"]["responses"]["200"]["content"] == {"*/*": {"schema": {}}}
    assert "parameters" not in path["get"]
    assert "google.api.HttpBody" not in planted["components"]["schemas"]


def test_an_internal_rpc_is_left_out(planted: Json) -> None:
    assert "RestService/Hidden" not in json.dumps(planted)
