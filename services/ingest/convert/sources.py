"""Sources."""

from __future__ import annotations

from plexus.ingest.v1 import source_pb2, source_service_pb2
from plexus.ingest.v1.document_pb2 import Visibility as PbVisibility

from services.ingest.convert.documents import to_visibility
from services.ingest.domain.documents import Visibility
from services.ingest.domain.sources import (
    Folder,
    Mailbox,
    Place,
    RestList,
    Secrets,
    Source,
    SourceRun,
    WebAddress,
    Wish,
)
from services.runtime import clock


def to_wish(new: source_service_pb2.NewSource) -> Wish:
    """What a source shall be."""
    secrets = Secrets(new.mailbox.password, dict(new.rest.headers))
    return Wish(
        display_name=new.display_name,
        place=_place(new),
        secrets=secrets,
        schedule=new.schedule,
        paused=new.paused,
        collection=new.collection,
        visibility=to_visibility(new.visibility) or Visibility.TENANT,
    )


def _place(new: source_service_pb2.NewSource) -> Place:
    match new.WhichOneof("kind"):
        case "mailbox":
            box = new.mailbox
            return Mailbox(
                int(box.protocol), box.host, box.port, box.user, box.folder, box.starttls
            )
        case "rest":
            rest = new.rest
            return RestList(
                rest.url, rest.items, rest.item_id, rest.item_title, rest.item_text, rest.cursor
            )
        case "folder":
            folder = new.folder
            return Folder(folder.path, folder.pattern, folder.remove_missing)
    return WebAddress(new.web.url)


def from_source(source: Source) -> source_pb2.Source:
    """The contract's form of a source, without what is secret."""
    made = source_pb2.Source(
        source_id=source.source_id,
        display_name=source.display_name,
        schedule=source.schedule,
        paused=source.paused,
        collection=source.collection,
        visibility=PbVisibility.ValueType(int(source.visibility)),
        next_time=None if source.next_time is None else clock.to_timestamp(source.next_time),
        last_run=_from_run(source.last_run) if source.last_run else None,
        create_time=clock.to_timestamp(source.create_time),
        etag=source.etag,
    )
    match source.place:
        case Mailbox() as box:
            made.mailbox.CopyFrom(
                source_pb2.Mailbox(
                    protocol=source_pb2.MailProtocol.ValueType(box.protocol),
                    host=box.host,
                    port=box.port,
                    user=box.user,
                    folder=box.folder,
                    starttls=box.starttls,
                )
            )
        case RestList() as rest:
            made.rest.CopyFrom(
                source_pb2.RestList(
                    url=rest.url,
                    items=rest.items,
                    item_id=rest.item_id,
                    item_title=rest.item_title,
                    item_text=rest.item_text,
                    cursor=rest.cursor,
                )
            )
        case Folder() as folder:
            made.folder.CopyFrom(
                source_pb2.Folder(
                    path=folder.path,
                    pattern=folder.pattern,
                    remove_missing=folder.remove_missing,
                )
            )
        case WebAddress(url=url):
            made.web.CopyFrom(source_pb2.WebAddress(url=url))
    return made


def _from_run(run: SourceRun) -> source_pb2.SourceRun:
    return source_pb2.SourceRun(
        start_time=clock.to_timestamp(run.start_time),
        end_time=None if run.end_time is None else clock.to_timestamp(run.end_time),
        added=run.added,
        changed=run.changed,
        unchanged=run.unchanged,
        removed=run.removed,
        failure=run.failure,
    )
