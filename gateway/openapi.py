"""The REST face of the contracts as an OpenAPI 3.1 document.

Everything in it is read from the descriptor set: bindings from `google.api.http`, words from the
comments, constraints from the validation rules, access from the policy. Field names are the
contract's own, as the gateway prints them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from proto.tools.descriptors import Binding, Contracts, Policy, is_map, module
from proto.tools.json_schema import PREFIX, WELL_KNOWN, Schema, Schemas

_HTTP_BODY: Final = "google.api.HttpBody"
_STATUS: Final = "google.rpc.Status"
_REASONS: Final = "plexus.errors.v1.ErrorReason"
_REASON_PREFIX: Final = "ERROR_REASON_"
# What an error carries beside its words; the runtime sends no others.
_DETAILS: Final = (
    "google.rpc.ErrorInfo",
    "google.rpc.BadRequest",
    "google.rpc.RetryInfo",
)
# After the name of a message that replies hold too.
_IN_BODY: Final = ".Body"
_VERBS: Final = ("get", "put", "post", "delete", "patch", "head", "options", "trace")


def render(descriptor_set: Path) -> str:
    """The document for the contracts in a descriptor set, the same for the same contracts."""
    document = _Document(Contracts.read(descriptor_set)).build()
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


class _Document:
    """One rendering: the contracts, and the schemas that its operations refer to."""

    def __init__(self, contracts: Contracts) -> None:
        self._contracts = contracts
        self._schemas = Schemas(contracts)
        # Of bodies, where the gateway refuses what it does not know; replies may gain fields.
        self._bodies = Schemas(contracts)
        self._reasons = self._documented_reasons()

    def build(self) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = {}
        tags = {}
        for method in self._contracts.methods():
            policy = self._contracts.policy(method)
            if policy is None or policy.access == "internal":
                continue
            for number, binding in enumerate(self._contracts.bindings(method), start=1):
                if binding.verb not in _VERBS:
                    continue
                operation = self._operation(method, policy, binding, number)
                paths.setdefault(binding.template, {})[binding.verb] = operation
                service = method.containing_service.full_name
                tags[module(service)] = self._contracts.comment(service)
        self._add_errors()
        renamed = self._add_bodies()
        for item in paths.values():
            for operation in item.values():
                if "requestBody" in operation:
                    operation["requestBody"] = closed(operation["requestBody"], renamed)
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Plexus",
                "version": "v1",
                "description": "The REST face of the Plexus contracts. 64-bit numbers are strings; "
                "fields that hold their default may be left out. An event stream carries one JSON "
                "message in the `data` of each event.",
            },
            "servers": [{"url": "/"}],
            "tags": [{"name": name, "description": tags[name]} for name in sorted(tags)],
            "paths": paths,
            "components": {
                "schemas": self._schemas.components,
                "responses": {"Error": _error_response()},
                "securitySchemes": {"bearer": _bearer()},
            },
        }

    def _operation(
        self, method: MethodDescriptor, policy: Policy, binding: Binding, number: int
    ) -> dict[str, Any]:
        comment = self._contracts.comment(method.full_name)
        operation: dict[str, Any] = {
            "operationId": _operation_id(method, number),
            "summary": _first_sentence(comment),
            "description": comment,
            "tags": [module(method.full_name)],
            "security": [] if policy.access == "public" else [{"bearer": []}],
            "responses": {
                "200": self._answer(method, binding),
                "default": {"$ref": "#/components/responses/Error"},
            },
            "x-plexus-rpc": f"{method.containing_service.full_name}/{method.name}",
            "x-plexus-deadline-seconds": _whole(policy.deadline),
        }
        if policy.access == "permission":
            operation["x-plexus-permission"] = policy.permission
            operation["x-plexus-role"] = policy.role
        if level := self._contracts.options(method.full_name).get("idempotency_level"):
            operation["x-plexus-idempotency"] = level
        if reasons := [name for name in self._reasons if re.search(rf"\b{name}\b", comment)]:
            operation["x-plexus-reasons"] = reasons
        if parameters := self._parameters(method.input_type, binding):
            operation["parameters"] = parameters
        if body := self._body(method, binding):
            operation["requestBody"] = body
        return operation

    def _parameters(self, request: Descriptor, binding: Binding) -> list[Schema]:
        found = [
            {
                "name": name,
                "in": "path",
                "required": True,
                **self._described(_field_at(request, name)),
            }
            for name in binding.path_fields
        ]
        if binding.body == "*" or request.full_name == _HTTP_BODY:
            return found
        elsewhere = {*binding.path_fields, binding.body}
        for name, field in _query_fields(request, "", elsewhere, frozenset()):
            # A nested field is required only where its message is sent at all.
            required = "." not in name and self._schemas.required(field)
            found.append(
                {"name": name, "in": "query", "required": required, **self._described(field)}
            )
        return found

    def _described(self, field: FieldDescriptor) -> Schema:
        schema = self._schemas.field(field)
        words = schema.pop("description", None)
        return {"schema": schema, **({"description": words} if words else {})}

    def _body(self, method: MethodDescriptor, binding: Binding) -> Schema | None:
        request = method.input_type
        if not binding.body:
            return None
        if binding.body != "*":
            field = request.fields_by_name[binding.body]
            if field.message_type is not None and field.message_type.full_name == _HTTP_BODY:
                return {"required": True, **_opaque()}
            return {
                "required": self._schemas.required(field),
                "content": {"application/json": {"schema": self._bodies.field(field)}},
            }
        if request.full_name == _HTTP_BODY:
            return {"required": True, **_opaque()}
        in_path = set(binding.path_fields)
        left = [field for field in request.fields if field.name not in in_path]
        whole = len(left) == len(request.fields)
        schema = self._bodies.message(request) if whole else self._bodies.fields(request, left)
        if method.client_streaming:
            schema = {"type": "array", "items": schema}
        return {
            "required": any(self._schemas.required(field) for field in left),
            "content": {"application/json": {"schema": schema}},
        }

    def _answer(self, method: MethodDescriptor, binding: Binding) -> Schema:
        response = method.output_type
        if response.full_name == _HTTP_BODY:
            return {"description": "The answer, in a format of its own.", **_opaque()}
        if binding.response_body:
            schema = self._schemas.field(response.fields_by_name[binding.response_body])
        else:
            schema = self._schemas.message(response)
        if method.server_streaming:
            words = "A stream of events; the `data` of each is one message."
            return {"description": words, "content": {"text/event-stream": {"schema": schema}}}
        return {"description": "Done.", "content": {"application/json": {"schema": schema}}}

    def _documented_reasons(self) -> dict[str, str]:
        """Every reason as it travels, without its prefix, and what a caller can do about it."""
        enum = self._contracts.pool.FindEnumTypeByName(_REASONS)
        return {
            value.name.removeprefix(_REASON_PREFIX): " ".join(
                self._contracts.comment(f"{_REASONS}.{value.name}").split()
            )
            for value in enum.values
            if value.number
        }

    def _add_bodies(self) -> dict[str, str]:
        """Put what bodies refer to among the schemas; what is named otherwise there, by its name.

        A message that replies hold too has two schemas, one of them closed.
        """
        known, bodies = self._schemas.components, self._bodies.components
        renamed = {
            f"{PREFIX}{name}": f"{PREFIX}{name}{_IN_BODY}"
            for name, schema in bodies.items()
            if name in known and "properties" in schema
        }
        for name, schema in bodies.items():
            new = renamed.get(f"{PREFIX}{name}", f"{PREFIX}{name}").removeprefix(PREFIX)
            known.setdefault(new, closed(schema, renamed))
        return renamed

    def _add_errors(self) -> None:
        """Put google.rpc.Status and what it carries among the schemas."""
        components = self._schemas.components
        details = []
        for name in _DETAILS:
            known = self._schemas.message(self._contracts.pool.FindMessageTypeByName(name))
            kind = {"const": f"type.googleapis.com/{name}"}
            details.append({"allOf": [known], "properties": {"@type": kind}, "required": ["@type"]})
        info = components["google.rpc.ErrorInfo"]["properties"]
        info["domain"] = {"type": "string", "description": "`plexus` for the reasons listed here."}
        info["reason"] = {
            "type": "string",
            "description": "What went wrong. New reasons may be added.\n\n"
            + "\n".join(f"- `{name}`: {words}" for name, words in self._reasons.items()),
            "examples": list(self._reasons),
        }
        components[_STATUS] = {
            "type": "object",
            "description": self._contracts.comment(_REASONS),
            "properties": {
                "code": {"type": "integer", "format": "int32", "description": "The gRPC code."},
                "message": {"type": "string", "description": "The same in words, for a person."},
                "details": {
                    "type": "array",
                    "items": {"anyOf": [*details, dict(WELL_KNOWN["google.protobuf.Any"])]},
                },
            },
        }


def closed(schema: Any, renamed: Mapping[str, str]) -> Any:
    """A schema whose objects have no properties but their own, with its references renamed."""
    if isinstance(schema, list):
        return [closed(each, renamed) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value, renamed) for key, value in schema.items()}
    if isinstance(made.get("$ref"), str):
        made["$ref"] = renamed.get(made["$ref"], made["$ref"])
    if made.get("type") == "object" and "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


def _field_at(message: Descriptor, path: str) -> FieldDescriptor:
    *outer, last = path.split(".")
    for name in outer:
        nested = message.fields_by_name[name].message_type
        if nested is None:
            raise ValueError(f"{path} names no field of {message.full_name}")
        message = nested
    return message.fields_by_name[last]


def _query_fields(
    message: Descriptor, prefix: str, elsewhere: set[str], seen: frozenset[str]
) -> Iterator[tuple[str, FieldDescriptor]]:
    """What the gateway reads from a query: scalars, lists of them, and scalars in messages.

    Maps and lists of messages have no form in a query; a message within itself has no end.
    """
    for field in message.fields:
        name = f"{prefix}{field.name}"
        nested = field.message_type
        if name in elsewhere or is_map(field):
            continue
        if nested is None or (nested.full_name in WELL_KNOWN and not field.is_repeated):
            yield name, field
        elif not field.is_repeated and nested.full_name not in seen:
            yield from _query_fields(nested, f"{name}.", elsewhere, seen | {nested.full_name})


def _operation_id(method: MethodDescriptor, number: int) -> str:
    service = method.containing_service
    version = service.full_name.split(".")[-2]
    parts = [service.name, method.name]
    if version != "v1":
        parts.insert(0, version)
    if number > 1:
        parts.append(str(number))
    return "_".join(parts)


def _first_sentence(comment: str) -> str:
    paragraph = " ".join(comment.split("\n\n", maxsplit=1)[0].split())
    return re.split(r"(?<=[.:])\s+(?=[A-Z`])", paragraph, maxsplit=1)[0].rstrip(".:")


def _whole(seconds: float) -> float:
    return int(seconds) if seconds.is_integer() else seconds


def _opaque() -> Schema:
    return {"content": {"*/*": {"schema": {}}}}


def _error_response() -> Schema:
    return {
        "description": "An error. `details` holds its reason.",
        "content": {"application/json": {"schema": {"$ref": f"{PREFIX}{_STATUS}"}}},
    }


def _bearer() -> Schema:
    return {
        "type": "http",
        "scheme": "bearer",
        "description": "An access token of a login, or an API key.",
    }
