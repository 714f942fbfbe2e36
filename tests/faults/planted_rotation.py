"""Defects by which a change of keys is noticed, and a program of yesterday."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.faults.planting import Plant, module, replace


def new_keys_sign_at_once() -> None:
    """A key signs from the moment it is made, when nobody has heard of it."""
    signing = module("identity.service.signing")

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def signs_from(keys: Any, now: int, period: int, lead: int) -> Any:
            found = original(keys, now, period, lead)
            return None if found is None else now

        return signs_from

    replace(signing, "next_key_signs_from", make)


def old_keys_are_taken_back() -> None:
    """Whoever still has a token of the last key is refused."""
    signing = module("identity.service.signing")

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def published(keys: Any, now: int) -> Any:
            current = signing.signing_key_at(keys, now)
            known = original(keys, now)
            return [each for each in known if not current or each.sign_from >= current.sign_from]

        return published

    replace(signing, "published_keys", make)


def agents_of_yesterday() -> None:
    """No defect: a program that does not know the newest tables of agents."""
    migrations = module("runtime.migrations")

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def revisions(folder: Any) -> list[str]:
            found: list[str] = original(folder)
            return found[:-1] if folder.parent.name == "agents" else found

        return revisions

    replace(migrations, "revisions", make)


def a_column_is_forgotten() -> None:
    """A step says that it was done, and does a part of it."""
    from alembic.operations import Operations

    replace(
        Operations,
        "add_column",
        lambda original: (
            lambda self, table, column, **more: (
                None if column.name == "cancel_by" else original(self, table, column, **more)
            )
        ),
    )


DEFECTS: dict[str, Plant] = {
    each.__name__: each
    for each in (
        new_keys_sign_at_once,
        old_keys_are_taken_back,
        agents_of_yesterday,
        a_column_is_forgotten,
    )
}
