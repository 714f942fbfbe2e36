"""Laws of the tree: it depends on its contents alone, and what two have in common costs nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from services.memory.domain import tree

T = TypeVar("T")
_KEYS = [random.Random(number).randbytes(tree.KEY_BYTES) for number in range(600)]
keys = st.sampled_from(_KEYS)
values = st.integers(0, 3).map(lambda number: bytes([number]) * tree.VALUE_BYTES)
contents = st.dictionaries(keys, values, max_size=300)
edits = st.lists(st.dictionaries(keys, st.none() | values, max_size=120), max_size=6)


class Kept:
    """Nodes in memory; counts how many are read."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, tree.Node] = {}
        self.read = 0

    async def get(self, names: Iterable[bytes]) -> Mapping[bytes, tree.Node]:
        """See `tree.Nodes`."""
        found = {name: tree.Node.read(self.nodes[name].data) for name in names}
        self.read += len(found)
        return found

    async def edit(self, root: bytes | None, changes: Mapping[bytes, bytes | None]) -> bytes | None:
        """A tree after changes, its nodes kept."""
        edit = tree.Edit(self)
        after = await edit.apply(root, changes)
        self.nodes |= {node.name: node for node in edit.needed(after)}
        return after


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def changed(held: dict[bytes, bytes], changes: Mapping[bytes, bytes | None]) -> dict[bytes, bytes]:
    merged = {**held, **changes}
    return {key: value for key, value in merged.items() if value is not None}


async def built(nodes: Kept, held: Mapping[bytes, bytes]) -> bytes | None:
    return await nodes.edit(None, held)


@settings(max_examples=60, deadline=None)
@given(edits)
def test_equal_contents_have_the_same_root_whatever_became_of_them(
    steps: list[dict[bytes, bytes | None]],
) -> None:
    async def check() -> None:
        nodes, held, root = Kept(), dict[bytes, bytes](), None
        for changes in steps:
            held = changed(held, changes)
            root = await nodes.edit(root, changes)
            assert root == await built(Kept(), held)
            assert (nodes.nodes[root].count if root else 0) == len(held)

    run(check())


@settings(max_examples=60, deadline=None)
@given(contents, st.lists(keys, max_size=50), keys, st.integers(1, 40))
def test_looking_up_and_paging_are_as_in_a_dictionary(
    held: dict[bytes, bytes], wanted: list[bytes], after: bytes, limit: int
) -> None:
    async def check() -> None:
        nodes = Kept()
        root = await built(nodes, held)
        found = await tree.find(nodes, root, wanted)
        assert found == {key: held[key] for key in wanted if key in held}
        page = await tree.page(nodes, root, after, limit)
        assert page == [each for each in sorted(held.items()) if each[0] > after][:limit]

    run(check())


@settings(max_examples=60, deadline=None)
@given(contents, edits, keys)
def test_a_diff_is_the_difference_of_the_sets(
    held: dict[bytes, bytes], steps: list[dict[bytes, bytes | None]], after: bytes
) -> None:
    async def check() -> None:
        nodes, later = Kept(), held
        first = root = await built(nodes, held)
        for changes in steps:
            later, root = changed(later, changes), await nodes.edit(root, changes)
        wanted = [
            (key, held.get(key), later.get(key))
            for key in sorted(held.keys() | later.keys())
            if held.get(key) != later.get(key)
        ]
        assert [tuple(each) async for each in tree.diff(nodes, first, root)] == wanted
        rest = [tuple(each) async for each in tree.diff(nodes, first, root, after)]
        assert rest == [each for each in wanted if each[0] > after]

    run(check())


async def test_a_change_among_many_costs_a_path_and_a_diff_no_more() -> None:
    chance, nodes = random.Random(7), Kept()
    held = {chance.randbytes(16): chance.randbytes(20) for _ in range(30_000)}
    root = await built(nodes, held)
    known = len(nodes.nodes)
    nodes.read = 0
    after = await nodes.edit(root, {next(iter(held)): b"x" * 20})
    assert len(nodes.nodes) - known <= 6
    assert nodes.read <= 12
    nodes.read = 0
    assert len([each async for each in tree.diff(nodes, root, after)]) == 1
    assert nodes.read <= 12


async def test_nodes_stay_small() -> None:
    chance, nodes = random.Random(3), Kept()
    await built(nodes, {chance.randbytes(16): bytes(20) for _ in range(20_000)})
    sizes = [len(node.entries) for node in nodes.nodes.values()]
    assert max(sizes) < 500
    assert 16 < sum(sizes) / len(sizes) < 64
