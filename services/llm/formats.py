"""Answers that must be JSON of a certain form: how a model is told, and whether it complied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jsonschema_rs

from services.llm.domain.generation import AnswerFormat, Message, Model, Origin, Prompt, Role
from services.llm.domain.routing import Capability
from services.runtime.errors import InvalidRequest

_MAX_SCHEMA = 256 * 1024
_MOST_PROBLEMS = 10
_TOLD = "Answer with one JSON object and nothing else: no words around it, no code fence."
_PUT_RIGHT = (
    "That is not the JSON that was asked for. What is wrong:\n{problems}\nAnswer with the whole "
    "JSON object again, put right, and nothing else."
)


class FormatCheck:
    """Whether answers have a format."""

    def __init__(self, wanted: AnswerFormat) -> None:
        """Read the schema.

        Raises:
            InvalidRequest: It is none, or too large, or refers to something outside itself.
        """
        self._validator: Any = None
        if wanted.schema is None:
            return
        if len(json.dumps(wanted.schema)) > _MAX_SCHEMA:
            raise _bad_schema(f"is larger than {_MAX_SCHEMA // 1024} KiB")
        if _refers_outside(wanted.schema):
            raise _bad_schema("has a $ref to something outside itself")
        try:
            self._validator = jsonschema_rs.Draft202012Validator(dict(wanted.schema))
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise _bad_schema("is no JSON schema") from error

    def problems(self, text: str) -> list[str]:
        """What is wrong with an answer; nothing where it is as it should be."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return ["it is not JSON"]
        if not isinstance(value, dict):
            return ["it is not a JSON object"]
        if self._validator is None:
            return []
        found = []
        for error in self._validator.iter_errors(value):
            where = "/".join(map(str, error.instance_path))
            found.append(f"{where or 'the object'}: {error.message[:200]}")
            if len(found) == _MOST_PROBLEMS:
                break
        return found


def fitted(prompt: Prompt, model: Model) -> Prompt:
    """A prompt as a model understands it: one that knows no formats is told in words."""
    wanted = prompt.answer_format
    if wanted is None or Capability.JSON in model.capabilities:
        return prompt
    told = _TOLD
    if wanted.schema is not None:
        told += f" It must fit this JSON schema:\n{json.dumps(wanted.schema)}"
    message = Message(Role.SYSTEM, told, Origin.SYSTEM)
    return replace(prompt, messages=(message, *prompt.messages), answer_format=None)


def unfenced(text: str) -> str:
    """An answer without the code fence that models like to put around JSON."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        return text.split("\n", 1)[1].rsplit("```", 1)[0].strip()
    return text


def asking_again(prompt: Prompt, said: str, problems: list[str]) -> Prompt:
    """The prompt for a second try."""
    listed = "\n".join(f"- {each}" for each in problems)
    return replace(
        prompt,
        messages=(
            *prompt.messages,
            Message(Role.ASSISTANT, said, Origin.MODEL),
            Message(Role.USER, _PUT_RIGHT.format(problems=listed), Origin.SYSTEM),
        ),
    )


def _refers_outside(schema: object) -> bool:
    if isinstance(schema, Mapping):
        refers = schema.get("$ref", schema.get("$dynamicRef", "#"))
        inside = not isinstance(refers, str) or refers.startswith("#")
        return not inside or any(map(_refers_outside, schema.values()))
    return isinstance(schema, list) and any(map(_refers_outside, schema))


def _bad_schema(why: str) -> InvalidRequest:
    return InvalidRequest.field("answer_format.json_schema.schema", why)
