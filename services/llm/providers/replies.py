"""What a server of OpenAI's protocol answers in one piece."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from services.llm.domain.generation import Embedded, Judgement, Usage, model_unavailable
from services.runtime.errors import PlexusError

_MAX_DIMENSIONS = 8_192
_MAX_CATEGORIES = 100


def embedded(reply: object, count: int) -> Embedded:
    """The vectors in a reply, in the order of their texts.

    Raises:
        Unavailable: The reply is not as the protocol has it.
    """
    rows = _rows(reply, "data", count)
    vectors: list[array[float] | None] = [None] * count
    for place, row in enumerate(rows):
        index, values = row.get("index", place), row.get("embedding")
        if not isinstance(index, int) or not 0 <= index < count:
            raise _broken()
        if not isinstance(values, list) or not 0 < len(values) <= _MAX_DIMENSIONS:
            raise _broken()
        try:
            vectors[index] = array("f", values)
        except (TypeError, OverflowError) as error:
            raise _broken() from error
    found = [each for each in vectors if each is not None]
    if len(found) != count or len(set(map(len, found))) != 1:
        raise _broken()
    return Embedded(tuple(found), _usage(reply))


def judged(reply: object, count: int) -> Sequence[Judgement]:
    """The judgements in a reply, in the order of their texts.

    Raises:
        Unavailable: The reply is not as the protocol has it.
    """
    found = []
    for row in _rows(reply, "results", count):
        scores = row.get("category_scores")
        if not isinstance(scores, dict) or len(scores) > _MAX_CATEGORIES:
            raise _broken()
        if not all(isinstance(each, int | float) for each in scores.values()):
            raise _broken()
        named = {str(name)[:100]: float(score) for name, score in scores.items()}
        found.append(Judgement(bool(row.get("flagged")), named))
    return found


def _rows(reply: object, name: str, count: int) -> list[dict[str, Any]]:
    rows = reply.get(name) if isinstance(reply, dict) else None
    if not isinstance(rows, list) or len(rows) != count:
        raise _broken()
    if not all(isinstance(each, dict) for each in rows):
        raise _broken()
    return rows


def _usage(reply: object) -> Usage | None:
    usage = reply.get("usage") if isinstance(reply, dict) else None
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    if not isinstance(tokens, int) or not 0 <= tokens < 2**31:
        return None
    return Usage(tokens, 0, estimated=False)


def _broken() -> PlexusError:
    return model_unavailable("The model's server broke its own protocol.")
