"""Nodes of trees, as they are kept and as they are known."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from sqlalchemy import select

from services.memory.domain.tree import Node
from services.memory.store.shared import Place, batches
from services.memory.tables import nodes
from services.runtime.db import Connection, upsert

_MOST_KNOWN = 2_048


class KnownNodes:
    """Nodes that were read lately: one of a name never changes. They hold ids alone, no texts."""

    def __init__(self, most: int = _MOST_KNOWN) -> None:
        self._most = most
        self._nodes: OrderedDict[tuple[Place, bytes], Node] = OrderedDict()

    def get(self, place: Place, name: bytes) -> Node | None:
        """A node, if it is known."""
        found = self._nodes.get((place, name))
        if found is not None:
            self._nodes.move_to_end((place, name))
        return found

    def put(self, place: Place, name: bytes, node: Node) -> None:
        """Know a node."""
        self._nodes[place, name] = node
        if len(self._nodes) > self._most:
            self._nodes.popitem(last=False)


class StoredNodes:
    """The nodes of a space."""

    def __init__(self, connection: Connection, place: Place, known: KnownNodes) -> None:
        self._connection = connection
        self._place = place
        self._known = known

    async def get(self, names: Iterable[bytes]) -> Mapping[bytes, Node]:
        """See `tree.Nodes`."""
        found = {name: self._known.get(self._place, name) for name in names}
        missing = [name for name, node in found.items() if node is None]
        for some in batches(missing):
            query = select(nodes.c.name, nodes.c.data)
            rows = await self._connection.execute(
                query.where(*self._place.of(nodes), nodes.c.name.in_(some))
            )
            for row in rows:
                found[row.name] = Node.read(row.data)
                self._known.put(self._place, row.name, Node.read(row.data))
        return {name: node for name, node in found.items() if node is not None}

    async def add(self, made: Iterable[Node], now: int) -> None:
        """Keep nodes; of those that are there it is noted that they are wanted again."""
        table = upsert(self._connection.dialect.name, nodes)
        insert = table.on_conflict_do_update(
            index_elements=[nodes.c.tenant_id, nodes.c.space, nodes.c.name],
            set_={"stored_time": now},
        )
        rows = [
            {**self._place.values, "name": each.name, "data": each.data, "stored_time": now}
            for each in sorted(made, key=lambda node: node.name)
        ]
        for some in batches(rows):
            await self._connection.execute(insert, some)
