"""A tree of keys and values in which equal contents are equal nodes.

It is a B-tree whose nodes are named by a hash of what they hold, and are cut where the keys say so
and not where there was no room: a prolly tree (Noms, 2015; "Merkle search trees", Auvolat and
Taïani, 2019). The keys' own hashes give each key a height; a key of height 1 ends its leaf, one of
height 2 the node above it, too. So a tree depends on its contents alone and not on the order in
which they came, a change makes new nodes along one path, and what two trees have in common is
skipped by comparing names. Cuts look at keys and never at values: a changed value moves none.

Nothing here reads or writes: nodes come from, and new ones go to, whoever asks.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, TypeVar

T = TypeVar("T")

KEY_BYTES = 16
VALUE_BYTES = 20
# A node has 32 entries in the mean: a key is 1 higher than another with the chance 1/32.
_BITS = 5
_SIZE_BYTES = 4


class Entry(NamedTuple):
    """A key and its value, or above the leaves a node: its last key, its name, its keys' number."""

    key: bytes
    value: bytes
    size: int = 1


@dataclass(frozen=True)
class Node:
    """A node; `level` is 0 for a leaf."""

    level: int
    entries: tuple[Entry, ...]

    @cached_property
    def data(self) -> bytes:
        """How it is kept."""
        parts = [bytes((self.level,))]
        for key, value, size in self.entries:
            parts += (key, value)
            if self.level:
                parts.append(size.to_bytes(_SIZE_BYTES, "big"))
        return b"".join(parts)

    @cached_property
    def name(self) -> bytes:
        """A hash of what it holds."""
        return hashlib.blake2b(self.data, digest_size=VALUE_BYTES).digest()

    @property
    def count(self) -> int:
        """How many keys are in it and below."""
        return sum(entry.size for entry in self.entries) if self.level else len(self.entries)

    @classmethod
    def read(cls, data: bytes) -> Node:
        """A node as it was kept."""
        level, width = data[0], KEY_BYTES + VALUE_BYTES + (_SIZE_BYTES if data[0] else 0)
        entries = []
        for at in range(1, len(data), width):
            value = data[at + KEY_BYTES : at + KEY_BYTES + VALUE_BYTES]
            rest = data[at + KEY_BYTES + VALUE_BYTES : at + width]
            size = int.from_bytes(rest, "big") if level else 1
            entries.append(Entry(data[at : at + KEY_BYTES], value, size))
        return cls(level, tuple(entries))


class Nodes(Protocol):
    """Where nodes are kept."""

    async def get(self, names: Iterable[bytes]) -> Mapping[bytes, Node]:
        """The nodes of these names, all of them."""
        ...


class Change(NamedTuple):
    """A key that differs: its value in each of two trees, None where it is not there."""

    key: bytes
    before: bytes | None
    after: bytes | None


def height(key: bytes) -> int:
    """How many levels of nodes a key ends."""
    bits = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
    return ((bits & -bits).bit_length() - 1) // _BITS if bits else 64 // _BITS


class Edit:
    """One edit of a tree; the nodes that it made are in `made`."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self.made: dict[bytes, Node] = {}
        self._read: dict[bytes, Node] = {}

    async def apply(
        self, root: bytes | None, changes: Mapping[bytes, bytes | None]
    ) -> bytes | None:
        """The root of the tree with these keys set, or removed where the value is None.

        None stands for the empty tree. Nodes that are not in the outcome any more may be in
        `made`, too: use `needed`.
        """
        wanted = sorted(changes.items())
        if root is None:
            pieces, level = self._cut(0, [Entry(k, v) for k, v in wanted if v is not None]), 0
        else:
            await self._prefetch(root, [key for key, _ in wanted])
            level = self._read[root].level
            pieces = await self._rebuilt(root, wanted)
        while len(pieces) > 1:
            level += 1
            pieces = self._cut(level, pieces)
        return await self._lowest(pieces[0].value) if pieces else None

    def needed(self, root: bytes | None) -> list[Node]:
        """The new nodes of a tree that was made here."""
        found, left = [], [root] if root is not None else []
        while left:
            node = self.made.get(left.pop())
            if node is not None:
                found.append(node)
                left += [entry.value for entry in node.entries] if node.level else []
        return found

    async def _get(self, name: bytes) -> Node:
        node = self.made.get(name) or self._read.get(name)
        if node is None:
            node = (await self._nodes.get([name]))[name]
            self._read[name] = node
        return node

    async def _prefetch(self, root: bytes, keys: Sequence[bytes]) -> None:
        """Read the nodes on the ways to some keys, a level at a time."""
        wanted = {root: keys}
        while wanted:
            found = await self._nodes.get(wanted)
            self._read.update(found)
            wanted = {
                entry.value: below
                for name, above in wanted.items()
                if found[name].level
                for entry, below in _shared(found[name].entries, above, lambda key: key)
                if below
            }

    async def _rebuilt(
        self, name: bytes, changes: Sequence[tuple[bytes, bytes | None]]
    ) -> list[Entry]:
        """What becomes of a node: none, one or several of its level; only the last may be open."""
        node = await self._get(name)
        if node.level == 0:
            held: dict[bytes, bytes] = {entry.key: entry.value for entry in node.entries}
            for key, value in changes:
                if value is None:
                    held.pop(key, None)
                else:
                    held[key] = value
            return self._cut(0, [Entry(key, held[key]) for key in sorted(held)])
        children: list[Entry] = []
        for entry, below in _shared(node.entries, changes, lambda change: change[0]):
            children += await self._rebuilt(entry.value, below) if below else [entry]
        return self._cut(node.level, await self._joined(node.level, children))

    async def _joined(self, level: int, children: Sequence[Entry]) -> list[Entry]:
        """Children of a node of this level, those that do not end any more put together."""
        closed: list[Entry] = []
        for child in children:
            if closed and height(closed[-1].key) < level:
                closed[-1] = await self._concatenated(closed[-1], child)
            else:
                closed.append(child)
        return closed

    async def _concatenated(self, left: Entry, right: Entry) -> Entry:
        first, second = await self._get(left.value), await self._get(right.value)
        entries: Sequence[Entry] = (*first.entries, *second.entries)
        if first.level:
            entries = await self._joined(first.level, entries)
        return self._make(first.level, entries)

    def _cut(self, level: int, entries: Sequence[Entry]) -> list[Entry]:
        """Nodes of a level that hold these: each ends with a key that is high enough."""
        pieces, begin = [], 0
        for end, entry in enumerate(entries, 1):
            if height(entry.key) > level or end == len(entries):
                pieces.append(self._make(level, entries[begin:end]))
                begin = end
        return pieces

    def _make(self, level: int, entries: Sequence[Entry]) -> Entry:
        node = Node(level, tuple(entries))
        self.made.setdefault(node.name, node)
        return Entry(node.entries[-1].key, node.name, node.count)

    async def _lowest(self, root: bytes) -> bytes:
        """The root without the levels above it that hold one node alone."""
        node = await self._get(root)
        while node.level and len(node.entries) == 1:
            root = node.entries[0].value
            node = await self._get(root)
        return root


def _shared(
    entries: Sequence[Entry], items: Sequence[T], key_of: Callable[[T], bytes]
) -> Iterator[tuple[Entry, Sequence[T]]]:
    """Each child, with those of the sorted items that belong below it."""
    begin = 0
    for number, entry in enumerate(entries, 1):
        end = len(items)
        if number < len(entries):
            end = bisect_right(items, entry.key, begin, key=key_of)
        yield entry, items[begin:end]
        begin = end


async def find(nodes: Nodes, root: bytes | None, keys: Iterable[bytes]) -> dict[bytes, bytes]:
    """The values of some keys, of those that are there."""
    found: dict[bytes, bytes] = {}
    wanted = {root: sorted(set(keys))} if root is not None else {}
    while wanted:
        read = await nodes.get(wanted)
        below: dict[bytes, list[bytes]] = {}
        for name, sought in wanted.items():
            if read[name].level == 0:
                held = dict(entry[:2] for entry in read[name].entries)
                found.update({key: held[key] for key in sought if key in held})
                continue
            for entry, those in _shared(read[name].entries, sought, lambda key: key):
                if those:
                    below[entry.value] = list(those)
        wanted = below
    return found


async def page(
    nodes: Nodes, root: bytes | None, after: bytes, limit: int
) -> list[tuple[bytes, bytes]]:
    """So many keys behind one, in order, with their values."""
    found: list[tuple[bytes, bytes]] = []
    left = [Entry(b"\xff" * KEY_BYTES, root)] if root is not None else []
    while left and len(found) < limit:
        node = (await nodes.get([left[0].value]))[left.pop(0).value]
        entries = [entry for entry in node.entries if entry.key > after]
        if node.level:
            left = entries + left
        else:
            found += [entry[:2] for entry in entries]
    return found[:limit]


async def diff(
    nodes: Nodes, first: bytes | None, second: bytes | None, after: bytes = b""
) -> AsyncIterator[Change]:
    """The keys that differ, in order, behind one.

    What both have in common is not read: the work grows with what differs.
    """
    ours, theirs = _Cursor(nodes, first, after), _Cursor(nodes, second, after)
    while True:
        await _align(ours, theirs)
        left, right = ours.entry(), theirs.entry()
        if left is None and right is None:
            return
        if right is None or (left is not None and left.key < right.key):
            assert left is not None
            yield Change(left.key, left.value, None)
            ours.drop()
        elif left is None or right.key < left.key:
            yield Change(right.key, None, right.value)
            theirs.drop()
        else:
            if left.value != right.value:
                yield Change(left.key, left.value, right.value)
            ours.drop()
            theirs.drop()


class _Cursor:
    """What is left of a tree: the next first, each either an entry (level -1) or a node."""

    def __init__(self, nodes: Nodes, root: bytes | None, after: bytes) -> None:
        self._nodes = nodes
        self._after = after
        # The last first, so that taking the next is cheap.
        self._left: list[tuple[int, Entry]] = []
        if root is not None:
            self._left.append((_UNKNOWN, Entry(b"", root)))

    @property
    def level(self) -> int:
        """What is next: -1 for an entry or the end, else a node's level."""
        return self._left[-1][0] if self._left else -1

    def entry(self) -> Entry | None:
        """The next entry, or node; None at the end."""
        return self._left[-1][1] if self._left else None

    def drop(self) -> None:
        """Go on behind what is next."""
        self._left.pop()

    async def open(self) -> None:
        """Put what a node holds in its place."""
        _, entry = self._left.pop()
        node = (await self._nodes.get([entry.value]))[entry.value]
        behind = [each for each in node.entries if each.key > self._after]
        self._left += [(node.level - 1, each) for each in reversed(behind)]


# Above every level: a root is opened first.
_UNKNOWN = 64


async def _align(ours: _Cursor, theirs: _Cursor) -> None:
    """Skip the nodes that both have, and open those that differ, until entries are next."""
    while ours.level >= 0 or theirs.level >= 0:
        left, right = ours.entry(), theirs.entry()
        both = left is not None and right is not None and ours.level == theirs.level
        if both and left.value == right.value:  # type: ignore[union-attr]
            ours.drop()
            theirs.drop()
            continue
        highest = max(ours.level, theirs.level)
        opened = [each for each in (ours, theirs) if each.level == highest]
        for each in opened:
            await each.open()
