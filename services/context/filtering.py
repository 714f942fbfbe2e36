"""Filters as AIP-160 writes them, turned into conditions of the index."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from services.context.domain.conditions import AnyOf, Both, Condition, Either, Not, Present, Within
from services.context.domain.entries import (
    DOCUMENT,
    MEMORY,
    attribute_key,
    moment,
    number_of,
    words_of,
)
from services.runtime.errors import InvalidRequest

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

_MOST_COMPARISONS = 50
_MOST_DEPTH = 20
# Words of a filter that stand side by side are joined by AND, and OR binds closer than AND: AIP-160.
_GRAMMAR = r"""
    start: all
    all: any (_AND? any)*
    any: no (_OR no)*
    no: NEGATION? item | MINUS item
    ?item: "(" all ")" | comparison
    comparison: FIELD OPERATOR value
    value: STRING | BARE | STAR
    _AND: /AND\b/
    _OR: /OR\b/
    NEGATION.5: /NOT\b/
    MINUS: "-"
    OPERATOR: "<=" | ">=" | "!=" | "=" | "<" | ">" | ":"
    FIELD: /(?!(AND|OR|NOT)\b)[a-zA-Z_][a-zA-Z0-9_.-]*/
    STRING: /"(\\.|[^"\\])*"|'(\\.|[^'\\])*'/
    STAR: "*"
    BARE: /[^\s()"'<>=:*!][^\s()"'<>=*]*/
    %ignore /\s+/
"""
_WORDED = ("subject", "uri")
_TEXTS = (
    *("document_id", "collection", "uri", "media_type", "space", "memory_kind", "subject"),
    "person",
)
_KINDS = (DOCUMENT, MEMORY)
_ATTRIBUTES = "attributes."
_SIZES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_FIELDS = ", ".join(("kind", *_TEXTS, "page", "time", "attributes.<name>"))


@cache
def _parser() -> Lark:
    from lark import Lark

    return Lark(_GRAMMAR, parser="lalr")


def parse(text: str) -> Condition:
    """The condition that a filter says; everything where it is empty.

    Raises:
        InvalidRequest: It cannot be read; the error says where.
    """
    if not text.strip():
        return Both(())
    if _depth(text) > _MOST_DEPTH:
        raise _error(0, f"has more than {_MOST_DEPTH} parentheses within each other")
    from lark import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        at = error.pos_in_stream if error.pos_in_stream is not None else len(text)
        if isinstance(error, (UnexpectedToken, UnexpectedCharacters)) and 0 <= at < len(text):
            raise _error(at, f"cannot be read from `{text[at : at + 20]}` on") from None
        raise _error(len(text), "ends too early") from None
    if sum(1 for _ in tree.find_data("comparison")) > _MOST_COMPARISONS:
        raise _error(0, f"has more than {_MOST_COMPARISONS} comparisons")
    return _condition(tree)


def _depth(text: str) -> int:
    """How deep parentheses are, at most; those in strings count too, which harms nobody."""
    depth = most = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        most = max(most, depth)
    return most


def _condition(tree: Tree[Token]) -> Condition:
    from lark import Tree

    parts = [_condition(each) for each in tree.children if isinstance(each, Tree)]
    match tree.data:
        case "comparison":
            return _comparison(tree)
        case "no":
            return Not(parts[0]) if len(tree.children) > 1 else parts[0]
        case "any":
            return parts[0] if len(parts) == 1 else Either(tuple(parts))
        case _:
            return parts[0] if len(parts) == 1 else Both(tuple(parts))


def _comparison(tree: Tree[Token]) -> Condition:
    field, operator, value = tree.children
    literal = value.children[0]  # type: ignore[union-attr]
    at = field.start_pos or 0  # type: ignore[union-attr]
    return _Comparison(str(field), str(operator), literal, at).condition()  # type: ignore[arg-type]


class _Comparison:
    """One comparison, with its place in the filter."""

    def __init__(self, field: str, operator: str, literal: Token, at: int) -> None:
        self._field = field
        self._operator = operator
        self._at = at
        self._quoted = literal.type == "STRING"
        self._any = literal.type == "STAR"
        self._value = _ESCAPED.sub(r"\1", literal[1:-1]) if self._quoted else str(literal)

    def condition(self) -> Condition:
        """What it says of an entry."""
        if self._any and self._operator != ":":
            raise _error(self._at, "`*` goes with `:` alone: it asks whether the field is there")
        if self._operator == "!=":
            self._operator = "="
            return Not(self.condition())
        if self._field.startswith(_ATTRIBUTES):
            return self._attribute(self._field.removeprefix(_ATTRIBUTES))
        if self._field in ("page", "time"):
            return self._number(self._field)
        if self._field == "kind" or self._field in _TEXTS:
            return self._text()
        raise _error(self._at, f"`{self._field}` is no field; there are {_FIELDS}")

    def _text(self) -> Condition:
        if self._any:
            return Present(self._field)
        if self._operator not in ("=", ":"):
            raise _error(self._at, f"`{self._field}` is compared by `=`, `!=` and `:`")
        if self._field == "kind" and self._value not in _KINDS:
            raise _error(self._at, "`kind` is `document` or `memory`")
        if self._operator == ":" and self._field in _WORDED:
            return _has_words(f"{self._field}_words", self._value)
        return AnyOf(self._field, (self._value,))

    def _number(self, key: str) -> Condition:
        if self._any:
            return Within(key, gt=0) if key == "page" else Present(key)
        found = moment(self._value) if key == "time" else self._value
        number = None if found is None else number_of(found)
        if number is None or (key == "page" and moment(self._value) is not None):
            wanted = "a time such as 2026-03-01T00:00:00Z" if key == "time" else "a number"
            raise _error(self._at, f"`{key}` is compared with {wanted}")
        return _sized(key, self._operator, number)

    def _attribute(self, name: str) -> Condition:
        if not name or len(name) > 64:
            raise _error(self._at, "an attribute's name has 1 to 64 characters")
        text = attribute_key(name, "s")
        if self._any:
            return Present(text)
        number = number_of(self._value)
        size = attribute_key(name, "n")
        if self._operator == ":":
            return _has_words(attribute_key(name, "w"), self._value)
        if self._operator == "=":
            same = AnyOf(text, (self._value,))
            # `5` is 5.0, and a moment is the same in every zone; a quoted value is what it says.
            if number is None or self._quoted:
                return same
            return Either((same, Within(size, gte=number, lte=number)))
        if number is None:
            raise _error(self._at, f"`{self._operator}` compares with a number or a time")
        return _sized(size, self._operator, number)


def _sized(key: str, operator: str, number: float) -> Condition:
    if operator in ("=", ":"):
        return Within(key, gte=number, lte=number)
    return Within(key, **{_SIZES[operator]: number})


def _has_words(key: str, value: str) -> Condition:
    return Both(tuple(AnyOf(key, (word,)) for word in words_of(value)))


def _error(at: int, what: str) -> InvalidRequest:
    return InvalidRequest.field("filter", f"at character {at + 1}: {what}")
