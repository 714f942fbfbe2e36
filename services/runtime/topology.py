"""Which process serves which modules, and where each of them is reached.

An address is one of `unix:/run/plexus/agents-0.sock`, `127.0.0.1:50051` and `agents.local:50051`; a
name is resolved to as many addresses as its DNS has. A template of addresses may hold `{group}`,
`{replica}` (from 0) and `{port}`, which counts up from the first port through the whole table:

    unix:/run/plexus/{group}-{replica}.sock     one machine
    127.0.0.1:{port}                            one machine, over TCP
    plexus-{group}:50051                        a cluster, where DNS knows the replicas
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

from services.runtime.settings import Settings

_UNIX = "unix:"


class TopologyError(ValueError):
    """A table of groups, replicas or addresses that cannot be. The text says which."""


class AddressTaken(Exception):
    """Another process serves at this address. The text says which."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a process listens: a Unix socket (`path`), or `host` and `port`."""

    path: Path | None = None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """An address from its text.

        Raises:
            TopologyError: It is none.
        """
        if text.startswith(_UNIX):
            return cls(path=Path(text.removeprefix(_UNIX)))
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise TopologyError(f"{text} is no address: write unix:/path, or host:port")
        return cls(host=host.strip("[]"), port=int(port))

    @property
    def text(self) -> str:
        """The address as gRPC and people write it."""
        if self.path is not None:
            # What a URL would take for its own is escaped.
            return f"{_UNIX}{quote(str(self.path))}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_one_place(address: Address) -> bool:
    if address.path is not None:
        return True
    try:
        ip_address(address.host)
    except ValueError:
        return False
    return True


def target(addresses: Sequence[Address]) -> str:
    """GRPC's target for all of some addresses, which are of one kind."""
    if addresses[0].path is not None:
        return _UNIX + ",".join(each.text.removeprefix(_UNIX) for each in addresses)
    if len(addresses) == 1:
        return f"dns:///{addresses[0].text}"
    kind = "ipv6" if ":" in addresses[0].host else "ipv4"
    return f"{kind}:" + ",".join(each.text for each in addresses)


@dataclass(frozen=True, slots=True)
class Group:
    """Modules that one process serves, and how many such processes there are."""

    name: str
    modules: tuple[str, ...]
    addresses: tuple[Address, ...]

    @property
    def replicas(self) -> range:
        """The numbers of its processes. Where DNS knows them, the table has one."""
        return range(len(self.addresses))


class Topology:
    """The table of groups."""

    def __init__(self, groups: Iterable[Group]) -> None:
        self.groups = tuple(groups)
        self._of = {module: group for group in self.groups for module in group.modules}

    @classmethod
    def embedded(cls, settings: Settings, modules: Sequence[str]) -> Topology:
        """One process with every module."""
        return cls([Group("all", tuple(modules), (Address(path=settings.socket),))])

    @classmethod
    def mesh(cls, settings: Settings, modules: Sequence[str]) -> Topology:
        """The processes that the settings ask for; a module they do not name has its own.

        Raises:
            TopologyError: They name a module or a group that is not there, or one twice.
        """
        tables = _tables(settings.groups, modules)
        counts = _counts(settings.replicas, {name for name, _ in tables})
        template = settings.address or f"{_UNIX}{settings.run_dir}/{{group}}-{{replica}}.sock"
        port = settings.mesh_port
        groups: list[Group] = []
        for name, members in tables:
            addresses: list[Address] = []
            for replica in range(counts.get(name, 1)):
                fields = {"group": name, "replica": str(replica), "port": str(port)}
                port += 1
                address = Address.parse(_filled(template, fields))
                if address not in addresses:
                    addresses.append(address)
            if len(addresses) > 1 and not all(map(_is_one_place, addresses)):
                raise TopologyError(
                    f"PLEXUS_ADDRESS gives {name} several names: write an IP address with {{port}}"
                )
            if any(each.addresses[0] in addresses for each in groups):
                raise TopologyError("PLEXUS_ADDRESS gives two groups one address: use {group}")
            groups.append(Group(name, members, tuple(addresses)))
        return cls(groups)

    def group(self, name: str) -> Group:
        """A group by its name.

        Raises:
            TopologyError: There is none.
        """
        for each in self.groups:
            if each.name == name:
                return each
        known = ", ".join(each.name for each in self.groups)
        raise TopologyError(f"there is no group {name}; the groups are {known}")

    def own(self, module: str, replica: int) -> Address:
        """Where a replica of a module's group listens.

        Raises:
            TopologyError: There are not so many.
        """
        addresses = self.addresses(module)
        if not 0 <= replica < len(addresses):
            raise TopologyError(f"there is no replica {replica}; PLEXUS_REPLICAS says how many")
        return addresses[replica]

    def addresses(self, module: str) -> tuple[Address, ...]:
        """Where a module is reached."""
        return self._of[module].addresses

    def target(self, module: str) -> str:
        """GRPC's target for a module."""
        return target(self.addresses(module))


def _tables(text: str, modules: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Groups from `identity+monitor,llm`, each named by its modules joined with `-`."""
    left = list(modules)
    tables = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        members = tuple(each.strip() for each in part.split("+"))
        for member in members:
            if member not in left:
                raise TopologyError(
                    f"PLEXUS_GROUPS names {member}, which is no module or stands there twice; "
                    f"the modules are {', '.join(modules)}"
                )
            left.remove(member)
        tables.append(("-".join(members), members))
    return tables + [(module, (module,)) for module in left]


def _counts(text: str, groups: set[str]) -> dict[str, int]:
    """How many processes a group has, from `agents:2,llm:3`."""
    counts = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, count = part.partition(":")
        if name not in groups or not count.isdecimal() or not 0 < int(count) <= 64:
            raise TopologyError(
                f"PLEXUS_REPLICAS has {part}: write a group and a number from 1 to 64, such as "
                f"agents:2; the groups are {', '.join(sorted(groups))}"
            )
        counts[name] = int(count)
    return counts


def _filled(template: str, fields: dict[str, str]) -> str:
    try:
        return template.format(**fields)
    except (KeyError, IndexError, ValueError):
        known = ", ".join(f"{{{each}}}" for each in fields)
        raise TopologyError(f"PLEXUS_ADDRESS has a field that is none of {known}") from None
