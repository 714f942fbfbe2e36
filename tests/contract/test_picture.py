"""The README's picture of the mesh is the one that the contracts draw."""

from __future__ import annotations

from proto.tools.descriptors import Contracts
from proto.tools.picture import BEGIN, END, ROOT, draw, placed


def test_the_picture_is_of_the_contracts() -> None:
    page = (ROOT / "README.md").read_text()
    assert BEGIN in page and END in page
    picture = draw(Contracts.read(ROOT / "generated" / "plexus.binpb"))
    assert placed(page, picture) == page, "run `python -m proto.tools.picture`"
    assert placed(page, picture.replace("identity", "identities")) != page
