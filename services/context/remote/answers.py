"""What all calls of other modules have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from services.runtime.errors import Unavailable
from services.runtime.status import remote_errors


@contextmanager
def answers() -> Iterator[None]:
    """Raise what a module answered; one that cannot do it yet counts as away.

    Raises:
        PlexusError: As the module raised it.
        Unavailable: It does not answer, or does not know the call.
    """
    with remote_errors():
        try:
            yield
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise Unavailable("Another module cannot do this.", retry_after=10) from error
            raise
