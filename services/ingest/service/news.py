"""News of documents, for readers, watchers and the index: hints to look at the database."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from services.ingest.domain.documents import Document
from services.runtime.shared import Notices, Subscription

_WAITING = "ingest.waiting"
_FEED = "ingest.feed"
_POLL_SECONDS = 0.2
_NOTIFIED_POLL_SECONDS = 2.0


class News:
    """What replicas tell each other about documents."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices

    @property
    def patience(self) -> float:
        """How long to wait for news before looking without any."""
        return _NOTIFIED_POLL_SECONDS if self._notices.working else _POLL_SECONDS

    async def waiting(self, document: Document) -> None:
        """A document waits to be read."""
        await self._notices.publish(_WAITING)
        await self.changed(document)

    async def changed(self, document: Document) -> None:
        """A document's state is another one."""
        await self._notices.publish(_topic(document.document_id))

    async def found(self) -> None:
        """The feed has more."""
        await self._notices.publish(_FEED)

    def of_waiting(self) -> AbstractAsyncContextManager[Subscription]:
        """For readers."""
        return self._notices.subscribe(_WAITING)

    def of_feed(self) -> AbstractAsyncContextManager[Subscription]:
        """For the index."""
        return self._notices.subscribe(_FEED)

    def of(self, document_id: str) -> AbstractAsyncContextManager[Subscription]:
        """For watchers of a document."""
        return self._notices.subscribe(_topic(document_id))


def _topic(document_id: str) -> str:
    return f"ingest.document.{document_id}"
