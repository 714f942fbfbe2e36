"""What goes into a prompt, and what does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum

from services.context.domain.sources import Source, Trust

DEFAULT_TOKENS = 8_000
LEAST_TOKENS = 256
DEFAULT_SOURCES = 8


class BlockKind(IntEnum):
    """What a part of a prompt is, by the contract's numbers."""

    INSTRUCTIONS = 1
    SUMMARY = 2
    MEMORY = 3
    PASSAGE = 4
    MESSAGE = 5


class Voice(Enum):
    """Who speaks in a part, and where its words come from."""

    INSTALLATION = "installation"
    AUTHOR = "author"
    SUMMARY = "summary"
    RETRIEVED = "retrieved"
    USER = "user"
    AGENT = "agent"


class Why(Enum):
    """Why something was left out, as the contract says it."""

    BUDGET = "budget"
    REPEATS = "repeats"
    WEAK = "weak"
    SENSITIVE = "sensitive"


@dataclass(frozen=True, slots=True)
class Ask:
    """See InjectRequest."""

    input: str = ""
    session_id: str = ""
    agent_id: str = ""
    instructions: str = ""
    max_tokens: int = DEFAULT_TOKENS
    filter: str = ""
    spaces: Sequence[str] = ()
    max_sources: int = DEFAULT_SOURCES
    explain: bool = False
    model: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """See PromptBlock."""

    kind: BlockKind
    voice: Voice
    text: str
    trust: Trust
    tokens: int
    source: Source | None = None
    mark: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """See LeftOut of the contract."""

    kind: BlockKind
    source: Source
    why: Why
    tokens: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """See InjectResponse."""

    blocks: Sequence[Block]
    left_out: Sequence[LeftOut] = ()
    stale: bool = False

    @property
    def tokens(self) -> int:
        """How many its parts have together."""
        return sum(each.tokens for each in self.blocks)
