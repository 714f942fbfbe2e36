"""The picture of the mesh, drawn from the descriptor set: what callers reach, and what modules do.

    python -m proto.tools.picture        write it into README.md, between its two marks

Each module shows its RPCs by who may call them. The README keeps the picture as Mermaid, and a test
holds the two together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from google.protobuf.descriptor import MethodDescriptor

from proto.tools.descriptors import Contracts, module

ROOT: Final = Path(__file__).resolve().parents[2]
BEGIN: Final = "<!-- the mesh: drawn by `python -m proto.tools.picture` -->"
END: Final = "<!-- /the mesh -->"


def draw(contracts: Contracts) -> str:
    """The picture as a Mermaid block."""
    lines = ["```mermaid", "flowchart LR", '  callers["gRPC · REST + SSE · gRPC-Web"] --> envoy']
    lines.append('  envoy["Envoy<br/>routes, deadlines, limits, JWT, strict JSON"]')
    inside = []
    methods: dict[str, list[MethodDescriptor]] = {}
    for service in contracts.services():
        if service.methods:
            methods.setdefault(module(service.full_name), []).extend(service.methods)
    for name, own in methods.items():
        reached, streams, internal = 0, 0, []
        for method in own:
            policy = contracts.policy(method)
            if policy is not None and policy.access == "internal":
                internal.append(method.name)
            else:
                reached += 1
                streams += method.server_streaming
        label = f"{name}<br/>{_counted(reached, 'RPC')}"
        if streams:
            label += f", {streams} streaming"
        lines.append(f'  envoy --> {name}["{label}"]')
        inside += [f'  mesh -. "{", ".join(internal)}" .-> {name}'] if internal else []
    lines += ['  mesh(("the modules<br/>themselves"))', *inside, "```"]
    return "\n".join(lines)


def placed(page: str, picture: str) -> str:
    """A page with the picture between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{picture}\n{END}{after}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def main() -> None:
    """Write the picture."""
    page = ROOT / "README.md"
    contracts = Contracts.read(ROOT / "generated" / "plexus.binpb")
    page.write_text(placed(page.read_text(), draw(contracts)))


if __name__ == "__main__":
    main()
