"""What becomes of records that are to be stored, against the memories that are like them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from services.memory.domain.likeness import contradict, joined, merged, same
from services.memory.domain.values import Outcome, Record, Stored, Version
from services.runtime.errors import NotFound

Pair = tuple[Version, Version]


@dataclass(frozen=True, slots=True)
class Marked:
    """A record, what others like it are found by, and the id that it gets if it is new."""

    record: Record
    marks: frozenset[int]
    new_id: str


class Plan:
    """What records change, one after the other.

    Attributes:
        current: The memories that are looked at, as they will stand.
        changed: Those that the plan made or changed.
        stored: What became of each record.
        again: Memories that were there already, which makes them stronger.
    """

    def __init__(
        self,
        current: Mapping[str, Version],
        found_by: Mapping[int, Collection[str]],
        least: float,
        now: int,
    ) -> None:
        """Prepare.

        Args:
            current: The memories that may be the same as a record, as they stand.
            found_by: By which marks those are found, the newest first.
            least: From which likeness two are the same.
            now: When.
        """
        self.current = dict(current)
        self.changed: dict[str, Version] = {}
        self.stored: list[Stored] = []
        self.again: set[str] = set()
        self._found_by = {mark: list(ids) for mark, ids in found_by.items()}
        self._least = least
        self._now = now

    def take(self, marked: Marked) -> None:
        """Plan one record.

        Raises:
            NotFound: It names a memory that is not there.
        """
        record = marked.record
        if record.memory_id:
            self._change(record)
            return
        for memory_id in self._like(marked.marks):
            if same(self.current[memory_id].content, record.content, self._least):
                self._merge(memory_id, record)
                return
        made = Version(marked.new_id, record.content, self._now, self._now)
        self._set(made, marked.marks)
        self.stored.append(Stored(made.memory_id, Outcome.ADDED))

    def outcomes(self, pairs: Iterable[Pair]) -> list[Stored]:
        """What became of the records, with their versions and what says otherwise."""
        others: dict[str, list[str]] = {}
        for first, second in pairs:
            others.setdefault(first.memory_id, []).append(second.memory_id)
            others.setdefault(second.memory_id, []).append(first.memory_id)
        return [
            replace(
                each,
                version_id=self.current[each.memory_id].version_id,
                contradicts=tuple(sorted(others.get(each.memory_id, ()))),
            )
            for each in self.stored
        ]

    def _like(self, marks: Iterable[int]) -> Iterator[str]:
        seen: set[str] = set()
        for mark in marks:
            for memory_id in self._found_by.get(mark, ()):
                if memory_id in self.current and memory_id not in seen:
                    seen.add(memory_id)
                    yield memory_id

    def _change(self, record: Record) -> None:
        old = self.current.get(record.memory_id)
        if old is None:
            raise NotFound.of("memory")
        provenance = joined(old.content.provenance, record.content.provenance)
        content = replace(record.content, provenance=provenance)
        if content == old.content:
            self.stored.append(Stored(old.memory_id, Outcome.UNCHANGED))
            return
        self._set(old.saying(content, self._now), ())
        self.stored.append(Stored(old.memory_id, Outcome.CHANGED))

    def _merge(self, memory_id: str, record: Record) -> None:
        old = self.current[memory_id]
        content = merged(old.content, record.content)
        self.again.add(memory_id)
        if content == old.content:
            self.stored.append(Stored(memory_id, Outcome.UNCHANGED))
            return
        self._set(old.saying(content, self._now), ())
        self.stored.append(Stored(memory_id, Outcome.MERGED))

    def _set(self, version: Version, marks: Iterable[int]) -> None:
        self.current[version.memory_id] = self.changed[version.memory_id] = version
        for mark in marks:
            self._found_by.setdefault(mark, []).insert(0, version.memory_id)


def pairs(
    changed: Mapping[str, Version],
    current: Mapping[str, Version],
    near: Mapping[str, Collection[str]],
) -> list[Pair]:
    """The versions that say otherwise, each two once.

    Args:
        changed: The memories that were changed, as they stand now.
        current: All that are looked at, as they stand now.
        near: Of each that was changed those that may say otherwise.
    """
    found: dict[tuple[str, str], Pair] = {}
    for memory_id, version in changed.items():
        for other_id in near.get(memory_id, ()):
            other = current.get(other_id)
            if other is None or other_id == memory_id:
                continue
            if contradict(version.content, other.content):
                first, second = sorted((version, other), key=lambda each: each.memory_id)
                found[first.memory_id, second.memory_id] = (first, second)
    return list(found.values())
