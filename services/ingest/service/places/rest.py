"""Lists over REST."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

from services.ingest.domain.documents import Unreadable
from services.ingest.domain.looks import MARKDOWN
from services.ingest.domain.sources import RestList, at_pointer
from services.ingest.service.fetching import Fetcher, bounded
from services.ingest.service.places.things import Cursor, LookFailed, Seen, Thing

_MAX_PAGES = 1_000
_MAX_PAGE = 20_000_000
_OK = 200


async def look(
    fetcher: Fetcher, place: RestList, headers: Mapping[str, str], cursor: str
) -> AsyncIterator[Seen]:
    """The things of a list, page by page, from a cursor on.

    Raises:
        LookFailed: It does not answer, or with something else than was said of it.
    """
    for _ in range(_MAX_PAGES):
        reply = await _page(fetcher, place.url.replace("{cursor}", quote(cursor, safe="")), headers)
        items = at_pointer(reply, place.items)
        if not isinstance(items, list):
            raise LookFailed(f"There is no list at {place.items or 'the top'!r} of the reply.")
        for item in items:
            thing = _thing(place, item)
            if thing is not None:
                yield thing
        following = at_pointer(reply, place.cursor) if place.cursor else None
        if not isinstance(following, str | int) or isinstance(following, bool):
            return
        if not str(following) or str(following) == cursor:
            return
        cursor = str(following)
        if len(cursor) > 2000 or "{cursor}" not in place.url:
            raise LookFailed("Its cursor leads nowhere: the address has no {cursor}.")
        yield Cursor(cursor)
    raise LookFailed(f"It has more than {_MAX_PAGES} pages; the next look goes on.")


async def _page(fetcher: Fetcher, url: str, headers: Mapping[str, str]) -> Any:
    try:
        async with fetcher.opened(url, {"accept": "application/json", **headers}) as response:
            if response.status_code != _OK:
                raise LookFailed(f"Its address answers with {response.status_code}.")
            data = b"".join([piece async for piece in bounded(response, _MAX_PAGE)])
        return json.loads(data)
    except Unreadable as error:
        raise LookFailed(error.message) from error
    except (ValueError, RecursionError) as error:
        raise LookFailed("Its reply is not JSON.") from error


def _thing(place: RestList, item: Any) -> Thing | None:
    """An item as a thing; None where it has no id, or no text."""
    name = at_pointer(item, place.item_id)
    if not isinstance(name, str | int) or isinstance(name, bool) or not str(name):
        return None
    key = str(name).replace("\0", "")[:500]
    text = at_pointer(item, place.item_text) if place.item_text else item
    if text in (None, "", [], {}):
        return None
    said = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False, indent=1)
    data = said.replace("\0", "").encode("utf-8", "replace")
    title = at_pointer(item, place.item_title) if place.item_title else None
    called = " ".join(str(title or key).replace("\0", "").split())[:500]
    plain = called.encode("utf-8", "replace").decode()
    list_uri = place.url.replace("{cursor}", "")[:1400]
    return Thing(
        key=key,
        mark=hashlib.sha256(plain.encode() + b"\n" + data).hexdigest(),
        uri=f"{list_uri}#{quote(key, safe='', errors='replace')[:599]}",
        title=plain,
        file_name="",
        media_type=MARKDOWN if isinstance(text, str) else "text/plain",
        pieces=lambda: _once(data),
    )


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
