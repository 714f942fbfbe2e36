"""Tokens of texts, counted no more exactly than it matters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.runtime import tokens


async def sizes(texts: Sequence[str], budget: int) -> list[int]:
    """How many tokens texts have: at most as many as bytes where all fit so, else counted."""
    most = [tokens.at_most(each) for each in texts]
    if sum(most) <= budget:
        return most
    return await asyncio.to_thread(lambda: [tokens.count(each) for each in texts])
