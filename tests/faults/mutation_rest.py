"""Requests over REST, made from the OpenAPI description as a stranger would, and then spoilt."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from tests.e2e.mesh import ROOT
from tests.faults.wire import Raw

Json = Any
_VERBS = ("get", "put", "post", "delete", "patch")
_TEXTS = (
    "", " ", "\0", "a\0b", "\ud800", "\U0001f600" * 20, "\u202e\u200b", "%00", "../../etc/passwd",
    "'; DROP TABLE users; --", "{{7*7}}", "${jndi:ldap://x}", "<script>", "\r\nx: y", "NaN", "null",
    "true", "0", "-1", "1e999", "x" * 255, "x" * 5000, "ROLE_GOD", "2026-13-45T99:99:99Z",
    "0000-00-00T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "=" * 20, "e30", "W10", "WzEsMl0",
    "WzksImEiXQ", "Wy0xLCJrZXlfeCJd", "WzFlMzA5LCJ4Il0", "W3RydWUsIngiXQ",
)  # fmt: skip
_NUMBERS = (
    0, -1, 1, 2**31 - 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64,
    10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf"), 1.0,
)  # fmt: skip
_KINDS = (
    "application/json", "application/json; charset=utf-16", "text/plain", "application/xml",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/grpc-",
    "application/json, application/json", "*/*", "application/" + "x" * 500,
)  # fmt: skip
_HEADERS = (
    ("accept", "application/xml"), ("accept-encoding", "br;q=x"), ("content-encoding", "gzip"),
    ("content-encoding", "unheard-of"), ("grpc-timeout", "never"), ("grpc-timeout", "99999999999H"),
    ("grpc-timeout", "-1S"), ("traceparent", "00-zz-zz-zz"), ("traceparent", "x" * 3000),
    ("grpc-encoding", "gzip"), ("expect", "100-continue"), ("x-request-id", "\xff" * 50),
    ("range", "bytes=0-1"), ("if-match", "*"), ("cookie", "a=b; " * 500), ("te", "trailers, x"),
    ("grpc-accept-encoding", "x"), ("grpc-status", "0"), ("grpc-message", "%zz"),
    ("accept-language", "x" * 2000), ("content-type", "text/html"), ("via", "1.1 x"),
    ("x-http-method-override", "DELETE"), ("forwarded", "for=\"_x\""), ("origin", "null"),
)  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """One way to call an RPC, as the description has it."""

    rpc: str
    verb: str
    path: str
    parameters: tuple[Json, ...]
    body: Json
    deadline: float
    streams: bool


@dataclass(frozen=True)
class Case:
    """One request, what was done to it, and the fields in it that nobody knows."""

    rpc: str
    what: str
    raw: Raw
    deadline: float
    unknown: tuple[str, ...] = ()


@cache
def description() -> Json:
    """The OpenAPI description."""
    return json.loads((ROOT / "generated" / "openapi.json").read_text())


@cache
def operations() -> tuple[Operation, ...]:
    """Every operation of the description."""
    found = []
    for path, item in description()["paths"].items():
        for verb in _VERBS:
            if verb in item:
                each = item[verb]
                content = each.get("requestBody", {}).get("content", {})
                replies = each["responses"].get("200", {}).get("content", {})
                found.append(
                    Operation(
                        rpc=each["x-plexus-rpc"],
                        verb=verb.upper(),
                        path=path,
                        parameters=tuple(each.get("parameters", ())),
                        body=content.get("application/json", {}).get("schema"),
                        deadline=float(each["x-plexus-deadline-seconds"]),
                        streams="text/event-stream" in replies,
                    )
                )
    return tuple(found)


# Within these anything may stand: they are schemas, which their authors make, and maps by any name.
_FREE = re.compile(r"(^|\.)(schema|parameters|attributes|set_attributes|headers)(\.|\[|$)")


class RestMutator:
    """Makes requests by chance: mostly sound, with something wrong in each."""

    def __init__(self, chance: random.Random, known: dict[str, list[str]]) -> None:
        self._chance = chance
        self._known = known

    def cases(self) -> Iterator[Case]:
        """Requests without end, every operation in turn."""
        while True:
            for operation in operations():
                yield self._case(operation)

    def _case(self, operation: Operation) -> Case:
        body = None if operation.body is None else self._value(operation.body, "")
        kinds = [self._parameters, self._path, self._header, self._verb, self._whole]
        if body is not None:
            kinds += [self._field, self._field, self._field, self._unknown, self._unknown]
            kinds += [self._text, self._kind]
        spoil: Callable[[Operation, Json], Case] = self._chance.choice(kinds)
        return spoil(operation, body)

    # What is done to a request.

    def _whole(self, operation: Operation, body: Json) -> Case:
        """Sound, as far as the description says."""
        return self._made(operation, body, "nothing")

    def _field(self, operation: Operation, body: Json) -> Case:
        spoilt, path = self._replaced(body, self._odd())
        return self._made(operation, spoilt, f"odd value at {path}")

    def _unknown(self, operation: Operation, body: Json) -> Case:
        """A field more, somewhere in the body, under a name that no contract has."""
        name = self._chance.choice(("unheard_of", "unheardOf", "Input", "__proto__", "tenant_id_"))
        places = [(path, node) for path, node in _objects(body, "") if not _FREE.search(path)]
        path, node = self._chance.choice(places)
        node[name] = self._odd()
        whole = f"{path}.{name}" if path else name
        case = self._made(operation, body, f"unknown field {whole}")
        return replace(case, unknown=(whole,))

    def _text(self, operation: Operation, body: Json) -> Case:
        """Bytes that are no JSON, or barely."""
        text = json.dumps(body).encode()
        chance = self._chance
        at = chance.randrange(len(text) + 1)
        made = chance.choice(
            (
                lambda: text[:at],
                lambda: text[:at] + bytes([chance.randrange(256)]) + text[at:],
                lambda: text[:at] + text[at + 1 :],
                lambda: b"\xef\xbb\xbf" + text,
                lambda: json.dumps(body).encode("utf-16"),
                lambda: text + text,
                lambda: text + b" // comment",
                lambda: b"[" * chance.choice((50, 5000)) + b"]" * 50,
                lambda: b'{"a":' * chance.choice((50, 5000)) + b"1" + b"}" * 50,
                lambda: text.replace(b'"', b"'"),
                lambda: text.replace(b"}", b",}"),
                lambda: b"{" + text[1:-1] + b"," + text[1:-1] + b"}",
                lambda: chance.randbytes(chance.randrange(200)),
                lambda: b"null",
                lambda: b'"' + b"\\u0000" * 10 + b'"',
                lambda: text.replace(b'"', b'"\\ud800', 1),
                lambda: b" " * 100_000 + text,
                lambda: b"",
            )
        )()
        case = self._made(operation, body, "odd text")
        return replace(case, raw=replace(case.raw, body=made))

    def _kind(self, operation: Operation, body: Json) -> Case:
        kind = self._chance.choice(_KINDS)
        case = self._made(operation, body, f"content type {kind[:40]}")
        return replace(case, raw=replace(case.raw, headers=(("content-type", kind),)))

    def _parameters(self, operation: Operation, body: Json) -> Case:
        """Queries that are not the description's."""
        names = [each["name"] for each in operation.parameters if each["in"] == "query"]
        name = self._chance.choice([*names, *names, "unheard_of", "page_size.x", "a[b]", ""])
        pairs = [(name, self._word()) for _ in range(self._chance.choice((1, 1, 2, 300)))]
        case = self._made(operation, body, f"query {name}")
        mark = "&" if "?" in case.raw.path else "?"
        query = urlencode(pairs, errors="surrogatepass")
        return replace(case, raw=replace(case.raw, path=case.raw.path + mark + query))

    def _path(self, operation: Operation, body: Json) -> Case:
        word = quote(self._word(), safe="", errors="surrogatepass")
        odd = self._chance.choice(
            (word, "%ff", "%c3%28", "%", "..", "%2e", "*", ":", "a:b:c", "{x}")
        )
        return self._made(operation, body, f"path with {odd[:60]}", variable=odd or "%20")

    def _header(self, operation: Operation, body: Json) -> Case:
        case = self._made(operation, body, "header")
        some = self._chance.sample(_HEADERS, self._chance.choice((1, 1, 3)))
        many = [(f"x-{n}", "y") for n in range(100)] if self._chance.random() < 0.02 else []
        headers = (*case.raw.headers, *some, *many)
        what = f"headers {[name for name, _ in some]}"
        return replace(case, what=what, raw=replace(case.raw, headers=headers))

    def _verb(self, operation: Operation, body: Json) -> Case:
        verb = self._chance.choice(("GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "QUERY"))
        case = self._made(operation, body, f"verb {verb}")
        return replace(case, raw=replace(case.raw, verb=verb))

    # How a request is made.

    def _made(self, operation: Operation, body: Json, what: str, variable: str = "") -> Case:
        path = operation.path
        query = []
        for each in operation.parameters:
            value = self._value(each["schema"], each["name"])
            if each["in"] == "path":
                text = variable or quote(str(value), safe="", errors="surrogatepass")
                path = path.replace("{" + each["name"] + "}", text)
            elif self._chance.random() < 0.5:
                query.append((each["name"], value))
        if query:
            path += "?" + urlencode(query, errors="surrogatepass")
        raw = Raw(operation.verb, path)
        if body is not None:
            kind = (("content-type", "application/json"),)
            raw = replace(raw, headers=kind, body=json.dumps(body).encode())
        return Case(operation.rpc, what, raw, operation.deadline)

    def _value(self, schema: Json, name: str) -> Json:
        """Something that the description takes."""
        chance = self._chance
        if "$ref" in schema:
            schema = description()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        if "enum" in schema:
            return chance.choice(schema["enum"])
        if schema.get("type") == "object" or "properties" in schema:
            asked = schema.get("required", ())
            return {
                key: self._value(inner, key)
                for key, inner in schema.get("properties", {}).items()
                if key in asked or chance.random() < 0.5
            }
        if schema.get("type") == "array":
            count = chance.randint(schema.get("minItems", 0), min(3, schema.get("maxItems", 3)))
            return [self._value(schema["items"], name) for _ in range(count)]
        if schema.get("type") in ("integer", "number"):
            return chance.randint(int(schema.get("minimum", 0)), int(schema.get("maximum", 1000)))
        if schema.get("type") == "boolean":
            return chance.random() < 0.5
        return self._string(schema, name)

    def _string(self, schema: Json, name: str) -> str:
        if self._known.get(name) and self._chance.random() < 0.5:
            return str(self._chance.choice(self._known[name]))
        if schema.get("format") == "date-time":
            return "2030-01-01T00:00:00Z"
        if schema.get("format") == "email":
            return f"u{self._chance.getrandbits(40)}@example.com"
        least, most = schema.get("minLength", 0), schema.get("maxLength", 40)
        size = self._chance.choice((least, least, min(most, least + 8), min(most, 3000)))
        return "x" * int(size)

    def _odd(self) -> Json:
        chance = self._chance
        return chance.choice(
            (
                lambda: chance.choice(_TEXTS),
                lambda: chance.choice(_TEXTS),
                lambda: chance.choice(_NUMBERS),
                lambda: chance.choice((None, True, False, {}, [], [[]], [None], {"": ""})),
                lambda: {"unheard_of": chance.choice(_TEXTS)},
                lambda: [chance.choice(_NUMBERS)] * 50,
                lambda: "x" * chance.choice((101, 257, 513, 100_001)),
            )
        )()

    def _word(self) -> str:
        value = self._odd()
        return value if isinstance(value, str) else json.dumps(value)

    def _replaced(self, body: Json, odd: Json) -> tuple[Json, str]:
        places = [(path, node) for path, node in _objects(body, "") if node]
        if not places:
            return odd, "the whole"
        path, node = self._chance.choice(places)
        key = self._chance.choice(sorted(node))
        if self._chance.random() < 0.2:
            del node[key]
        else:
            node[key] = odd
        return body, f"{path}.{key}"


def _objects(node: Json, path: str) -> Iterator[tuple[str, dict[str, Json]]]:
    """Every object in a body, with the path to it as violations have it."""
    if isinstance(node, dict):
        yield path, node
        for key, inner in list(node.items()):
            yield from _objects(inner, f"{path}.{key}" if path else key)
    elif isinstance(node, list):
        for at, inner in enumerate(node):
            yield from _objects(inner, f"{path}[{at}]")
