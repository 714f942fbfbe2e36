"""Which of what was found goes into a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.context.domain.asking import Hit
from services.context.domain.prompts import Block, BlockKind, LeftOut, Voice, Why
from services.context.domain.ranking import Signal
from services.context.domain.sources import Kind, Source
from services.context.text.likeness import repeats, speaks_of
from services.context.text.words import terms

_OWN_MODELS = "offline/"
# By cosine; below it, what is near by meaning alone is near to anything.
_NEAR = 0.5


@dataclass
class Chooser:
    """Takes sources one by one, the best first.

    Attributes:
        asked: The words by which something was asked for.
        said: The stems of each message of the conversation.
        model: The model that will be asked.
        room: How many tokens there are for sources.
        most: How many sources there may be.
    """

    asked: frozenset[str]
    said: Sequence[frozenset[str]]
    model: str
    room: int
    most: int
    blocks: list[Block] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    _chosen: list[frozenset[str]] = field(default_factory=list)

    def consider(self, hit: Hit, size: int) -> None:
        """Take a source, or leave it out.

        Args:
            hit: The source, with what ranked it.
            size: How many tokens it has with its mark.
        """
        source = hit.source
        kind = BlockKind.MEMORY if source.kind is Kind.MEMORY else BlockKind.PASSAGE
        why = self._why_not(hit, size)
        if why is not None:
            self.left_out.append(LeftOut(kind, source, why, size))
            return
        mark = len(self.blocks) + 1
        reason = ", ".join(f"{each.signal.name.lower()} {each.rank}" for each in hit.ranks)
        text = marked(source, mark)
        self.blocks.append(
            Block(kind, Voice.RETRIEVED, text, source.trust, size, source, mark, reason)
        )
        self.room -= size
        self._chosen.append(frozenset(terms(source.text)))

    def _why_not(self, hit: Hit, size: int) -> Why | None:
        source = hit.source
        if source.confidential and not self.model.startswith(_OWN_MODELS):
            return Why.SENSITIVE
        near = any(each.signal is Signal.SEMANTIC and each.score >= _NEAR for each in hit.ranks)
        if not near and not speaks_of(self.asked, f"{source.title}\n{source.text}"):
            return Why.WEAK
        if repeats(source.text, (*self._chosen, *self.said)):
            return Why.REPEATS
        return Why.BUDGET if size > self.room or len(self.blocks) >= self.most else None


def marked(source: Source, mark: int) -> str:
    """A source as a model is given it: what it is called, then what it says."""
    page = f", page {source.page}" if source.page else ""
    title = f" {source.title}{page}" if source.title else ""
    return f"[{mark}]{title}\n{source.text}"
