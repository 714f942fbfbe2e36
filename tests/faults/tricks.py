"""Tricks of path, verb and content type, and where each of them must lead.

Where a request leads is worked out here from the contract's templates and RFC 3986 alone: the path
is cleaned, and then either names an RPC exactly or leads nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote

from tests.faults.rpcs import Rpc, rpcs
from tests.faults.valid import valid
from tests.faults.wire import Raw, rest, web

# Names headers that end at the next hop: the gateway takes the credential away.
HOP_BY_HOP = ("connection", "authorization, x-plexus-assertion")
_REFUSED = re.compile(r"%00|#", re.IGNORECASE)
_UNRESERVED = re.compile(r"%([0-9a-fA-F]{2})")
_PLAIN = re.compile(r"[A-Za-z0-9._~-]")
_VARIABLE = re.compile(r"\{[^}]*\}")


@dataclass(frozen=True)
class Lead:
    """Where a request leads.

    Attributes:
        rpc: To the door of this one; None: nowhere.
        dead: The door is there and nothing behind it.
        unread: Whoever is let in is told that the request cannot be read.
        refused: It is not looked at, whoever sends it.
    """

    rpc: Rpc | None = None
    dead: bool = False
    unread: bool = False
    refused: bool = False


def leads(raw: Raw) -> Lead:
    """Where a request over HTTP must lead."""
    target, _, query = raw.path.partition("?")
    target = re.sub(r"^[a-z]+://[^/]*", "", target)
    spoilt = _REFUSED.search(target) or "#" in query
    if spoilt or not raw.verb.isupper() or raw.verb == "CONNECT":
        return Lead(refused=True)
    path = _clean(target)
    kinds = [value for name, value in raw.headers if name.lower() == "content-type"]
    if kinds and kinds[0].startswith("application/grpc"):
        return _native(path, kinds[0], query="?" in raw.path)
    lead = _rest(raw.verb, path)
    return replace(lead, unread=True) if "a=b" in query else lead


def _native(path: str, kind: str, *, query: bool) -> Lead:
    found = next((rpc for rpc in rpcs() if rpc.path == path and not rpc.internal), None)
    # A query is no part of gRPC, and a content type that nobody speaks reaches no method.
    known = kind in ("application/grpc-web+proto", "application/grpc-web-text", "application/grpc")
    return Lead(found, dead=query or not known)


def _rest(verb: str, path: str) -> Lead:
    best: tuple[int, Rpc, bool] | None = None
    for rpc in rpcs():
        for binding in rpc.bindings:
            if binding.verb.upper() != verb:
                continue
            if not re.fullmatch(_pattern(binding.path), path):
                continue
            variables = len(_VARIABLE.findall(binding.path))
            # A colon in a path's last part begins a verb, which this template has not.
            last = binding.path.rpartition("/")[2]
            dead = ":" in path.rpartition("/")[2] and ":" not in last
            if best is None or (variables, dead) < (best[0], best[2]):
                best = (variables, rpc, dead)
    return Lead(best[1], best[2]) if best else Lead()


def _pattern(template: str) -> str:
    """What a path template matches: a variable is one part of a path, or all that is left."""
    fixed = [re.escape(part) for part in _VARIABLE.split(template)]
    variables = [".+" if "**" in each else "[^/]+" for each in _VARIABLE.findall(template)]
    return "".join(a + b for a, b in zip(fixed, [*variables, ""], strict=True))


def _clean(path: str) -> str:
    def plain(found: re.Match[str]) -> str:
        character = chr(int(found[1], 16))
        return character if _PLAIN.match(character) else found[0]

    path = _UNRESERVED.sub(plain, path).replace("\\", "/")
    kept: list[str] = []
    parts = path.split("/")
    for part in parts:
        # Some take what follows a `;` for parameters, others for part of the name.
        if part.partition(";")[0] == "..":
            kept = kept[:-1]
        elif part not in ("", "."):
            kept.append(part)
    return "/" + "/".join(kept) + ("/" if parts[-1] in ("", ".", "..") and kept else "")


def requests(rpc: Rpc) -> Iterator[tuple[str, Raw]]:
    """Every trick with an RPC over HTTP/1, each by its name."""
    plain = web(rpc.path, valid(rpc.request).SerializeToString())
    for name, change in _PATHS.items():
        yield f"web: {name}", replace(plain, path=change(plain.path))
    for kind in ("application/json", "text/plain", "application/GRPC", "application/grpcfoo", ""):
        headers = (("content-type", kind),)
        yield f"web as {kind}", replace(plain, headers=headers)
    yield "web without a type", replace(plain, headers=())
    text = web(rpc.path, valid(rpc.request).SerializeToString(), text=True)
    yield "web in base64", text
    for binding in rpc.bindings:
        asked = rest(rpc, valid(rpc.request), binding)
        for name, change in _PATHS.items():
            yield f"rest: {name}", replace(asked, path=change(asked.path))
        for verb in ("PURGE", "PATCH", "TRACE", "HEAD", "OPTIONS", "get", "Post", "PROPFIND"):
            yield f"rest by {verb}", replace(asked, verb=verb)
        for verb in ("GET", "POST", "PUT", "DELETE"):
            if verb != asked.verb:
                yield f"rest by {verb}", replace(asked, verb=verb)
        yield from _headers(asked)


def _headers(asked: Raw) -> Iterator[tuple[str, Raw]]:
    for header in ("x-http-method-override", "x-http-method", "x-method-override"):
        for verb in ("GET", "DELETE"):
            more = (*asked.headers, (header, verb))
            yield f"rest with {header}: {verb}", replace(asked, headers=more)
    for kind in ("application/grpc", "application/grpc-web+proto", "application/grpc-web-text"):
        yield f"rest as {kind}", replace(asked, headers=(("content-type", kind),))
    more = (*asked.headers, HOP_BY_HOP)
    yield "rest with hop-by-hop headers", replace(asked, headers=more)


def native_paths(rpc: Rpc) -> Iterator[tuple[str, str]]:
    """Every trick with the path of a gRPC call."""
    for name, change in _PATHS.items():
        if name not in ("fragment", "absolute"):
            yield name, change(rpc.path)


def _last(path: str, change: Callable[[str], str]) -> str:
    """The path with its last letter changed, what follows a `?` left alone."""
    front, mark, query = path.partition("?")
    return front[:-1] + change(front[-1]) + mark + query


def _before_query(path: str, more: str) -> str:
    front, mark, query = path.partition("?")
    return front + more + mark + query


_PATHS: dict[str, Callable[[str], str]] = {
    "upper case": lambda path: path.upper(),
    "case swapped": lambda path: path.swapcase(),
    "slash doubled at the front": lambda path: "/" + path,
    "slashes doubled": lambda path: path.replace("/", "//"),
    "slash at the end": lambda path: _before_query(path, "/"),
    "slash encoded": lambda path: path[0] + path[1:].replace("/", "%2f"),
    "slash encoded in capitals": lambda path: path[0] + path[1:].replace("/", "%2F"),
    "slash encoded twice": lambda path: path[0] + path[1:].replace("/", "%252f"),
    "backslash": lambda path: path[0] + path[1:].replace("/", "\\"),
    "backslash encoded": lambda path: path[0] + path[1:].replace("/", "%5c"),
    "parameters": lambda path: _before_query(path, ";a=b"),
    "parameters within": lambda path: path[0] + path[1:].replace("/", ";a=b/", 1),
    "letter encoded": lambda path: _last(path, lambda last: f"%{ord(last):02x}"),
    "letter encoded twice": lambda path: _last(path, lambda last: f"%25{ord(last):02x}"),
    "zero byte": lambda path: _before_query(path, "%00"),
    "space": lambda path: _before_query(path, "%20"),
    "line end": lambda path: _before_query(path, "%0d%0a"),
    "wide letter": lambda path: _last(path, lambda last: quote(chr(ord(last) + 0xFEE0))),
    "there and back": lambda path: "/v1/.." + path,
    "there and back, encoded": lambda path: "/v1/%2e%2e" + path,
    "there and back, parameters": lambda path: "/v1/..;" + path,
    "from what is public": lambda path: "/.well-known/jwks.json/../.." + path,
    "above the root": lambda path: "/../.." + path,
    "a dot": lambda path: "/." + path,
    "a dot at the end": lambda path: _before_query(path, "/."),
    "a suffix": lambda path: _before_query(path, ".json"),
    "a query": lambda path: path + ("&" if "?" in path else "?") + "a=b",
    "an empty query": lambda path: path if "?" in path else path + "?",
    "a version more": lambda path: path.replace("v1", "v2"),
    "fragment": lambda path: path + "#/.well-known/jwks.json",
    "absolute": lambda path: "http://other.example" + path,
}
