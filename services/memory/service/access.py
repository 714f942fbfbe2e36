"""Which space a request is about, and who may touch it."""

from __future__ import annotations

from plexus.options.v1.options_pb2 import Role

from services.memory.domain.values import MAIN, Space, require_storable
from services.memory.store import spaces
from services.memory.store.shared import Place
from services.runtime.context import Principal
from services.runtime.db import Connection
from services.runtime.errors import InvalidRequest, NotFound, PermissionDenied, ResourceExhausted

_MAX_SPACES = 10_000


def place_of(who: Principal, space: str) -> Place:
    """The space that a request names; empty is the caller's own.

    Raises:
        InvalidRequest: It names none, and the caller has none.
        NotFound: It is another user's.
    """
    own = f"user/{who.user_id}" if who.user_id else ""
    if not space and not own:
        raise InvalidRequest.field("space", "is required where no user is acted for")
    # Another user's space looks like one that is not there, whether it is or not.
    if own and space.startswith("user/") and space != own:
        raise NotFound.of("space")
    return Place(who.tenant_id, space or own)


async def space_of(connection: Connection, who: Principal, place: Place) -> Space:
    """A space that the caller may read and write.

    Raises:
        NotFound: It is not there, or not for the caller.
    """
    return await spaces.get(connection, place, who.user_id)


async def begun(connection: Connection, who: Principal, place: Place, now: int) -> Space:
    """A space that the caller may write, which begins if it is not there.

    Raises:
        NotFound: It is not for the caller.
        ResourceExhausted: The tenant has too many.
    """
    try:
        return await spaces.get(connection, place, who.user_id)
    except NotFound:
        pass
    if await spaces.count(connection, place.tenant_id) >= _MAX_SPACES:
        raise ResourceExhausted("The tenant has too many spaces.", metadata={"limit": "spaces"})
    await spaces.begin(connection, place, now)
    return await spaces.get(connection, place, who.user_id)


def require_manager(who: Principal, place: Place) -> None:
    """Refuse to change a space of several users for whoever is no administrator.

    Raises:
        PermissionDenied: The role is missing.
    """
    if not place.space.startswith("user/") and who.role < Role.ROLE_ADMIN:
        raise PermissionDenied(
            "Only an administrator may change what a space of several users keeps.",
            metadata={"permission": "memory.write"},
        )


def chosen(place: Place, members: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The users who are to have a space.

    Raises:
        InvalidRequest: It is a user's own, or one of them cannot be kept.
    """
    if members and place.space.startswith("user/"):
        raise InvalidRequest.field("members", "are of spaces that are no user's own")
    for each in members or ():
        require_storable("members.user_ids", each)
    return members


def require_person(who: Principal, space: Space, branch: str) -> None:
    """Refuse an agent to change `main` where a person is to look at it first.

    Raises:
        PermissionDenied: It is to propose it.
    """
    if who.mesh and space.policy.review and branch == MAIN:
        raise PermissionDenied(
            "In this space an agent proposes, and a person decides.",
            metadata={"permission": "memory.write"},
        )
