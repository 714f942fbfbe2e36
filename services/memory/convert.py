"""Memory's messages on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.timestamp_pb2 import Timestamp
from plexus.memory.v1 import care_service_pb2 as care_pb
from plexus.memory.v1 import feed_service_pb2 as feed_pb
from plexus.memory.v1 import memory_pb2 as pb
from plexus.memory.v1 import version_pb2

from services.memory.domain.values import (
    At,
    Attribute,
    Commit,
    Content,
    Erasure,
    Kind,
    Memory,
    Origin,
    Policy,
    Proposal,
    Record,
    Ref,
    Sensitivity,
    Space,
    Stored,
    Version,
    Wanted,
)
from services.memory.service.feeding import Turned
from services.runtime import clock
from services.runtime.errors import InvalidRequest

_MAX_SECONDS = 253_402_300_799
_MIN_SECONDS = -62_135_596_800


def moment(message: Timestamp, path: str) -> int:
    """A time of a request.

    Raises:
        InvalidRequest: It is none that a calendar has.
    """
    if not _MIN_SECONDS <= message.seconds <= _MAX_SECONDS or not 0 <= message.nanos < 10**9:
        raise InvalidRequest.field(path, "must be between the years 1 and 9999")
    return clock.from_timestamp(message)


def from_new(message: pb.NewMemory, path: str, user_id: str, now: int) -> Record:
    """A record to store, which without a source comes from whoever stores it.

    Raises:
        InvalidRequest: A time in it is none.
    """
    origins = [
        _from_origin(each, f"{path}provenance[{n}].", now)
        for n, each in enumerate(message.provenance)
    ] or [Origin("person", user_id or "mesh", now)]
    content = Content(
        text=message.text,
        kind=Kind(message.kind or Kind.KNOWLEDGE),
        attributes=from_attributes(message.attributes, f"{path}attributes"),
        subject=message.subject,
        person=message.person,
        confidence=message.confidence if message.HasField("confidence") else 1.0,
        sensitivity=Sensitivity(message.sensitivity or Sensitivity.INTERNAL),
        provenance=tuple({origin.source: origin for origin in reversed(origins)}.values())[::-1],
        valid_from=_optional(message, "valid_from", path),
        valid_until=_optional(message, "valid_until", path),
    )
    return Record(content, message.memory_id)


def _optional(message: pb.NewMemory, name: str, path: str) -> int | None:
    return moment(getattr(message, name), f"{path}{name}") if message.HasField(name) else None  # type: ignore[arg-type]


def from_attributes(attributes: Mapping[str, pb.AttributeValue], path: str) -> dict[str, Attribute]:
    """Attributes by name.

    Raises:
        InvalidRequest: A time among them is none.
    """
    return {name: _attribute(value, f"{path}[{name}]") for name, value in attributes.items()}


def _attribute(message: pb.AttributeValue, path: str) -> Attribute:
    match message.WhichOneof("value"):
        case "time":
            return ("time", moment(message.time, f"{path}.time"))
        case "integer":
            return ("integer", message.integer)
        case "number":
            return ("number", message.number)
        case "truth":
            return ("truth", message.truth)
        case _:
            return ("text", message.text)


def _from_origin(message: pb.Provenance, path: str, now: int) -> Origin:
    time = moment(message.time, f"{path}time") if message.HasField("time") else now
    match message.WhichOneof("origin"):
        case "run_id":
            return Origin("run", message.run_id, time)
        case "message_id":
            return Origin("message", message.message_id, time)
        case "document":
            span = message.document
            return Origin("document", span.document_id, time, span.start, span.end)
        case _:
            return Origin("person", message.person, time)


def from_filter(message: pb.MemoryFilter) -> Wanted:
    """What memories must be to be found.

    Raises:
        InvalidRequest: A time in it is none.
    """
    at: int | None = clock.now()
    if message.HasField("valid_at"):
        at = moment(message.valid_at, "filter.valid_at")
    return Wanted(
        kind=Kind(message.kind) if message.kind else None,
        subject=message.subject,
        person=message.person,
        attributes=from_attributes(message.attributes, "filter.attributes"),
        min_confidence=message.min_confidence,
        valid_at=None if message.include_invalid else at,
        max_sensitivity=Sensitivity(message.max_sensitivity or Sensitivity.CONFIDENTIAL),
    )


def from_revision(message: version_pb2.Revision, path: str = "revision") -> At:
    """A point of a space's history.

    Raises:
        InvalidRequest: Its time is none.
    """
    match message.WhichOneof("at"):
        case "branch":
            return At(branch=message.branch)
        case "tag":
            return At(tag=message.tag)
        case "commit_id":
            return At(commit_id=message.commit_id)
        case "time":
            return At(time=moment(message.time, f"{path}.time"))
        case _:
            return At()


def from_policy(message: version_pb2.SpacePolicy) -> Policy:
    """What a space is to keep."""
    return Policy(
        keep_versions=_microseconds(message, "keep_versions"),
        half_life=_microseconds(message, "half_life"),
        review=message.review,
        merge_likeness=message.merge_likeness if message.HasField("merge_likeness") else None,
    )


def _microseconds(message: version_pb2.SpacePolicy, name: str) -> int | None:
    if not message.HasField(name):  # type: ignore[arg-type]
        return None
    duration = getattr(message, name)
    return int(duration.seconds) * clock.SECOND + int(duration.nanos) // 1000


def to_memory(memory: Memory) -> pb.Memory:
    """The contract's form of a memory."""
    message = to_version(memory.version, memory.space)
    message.contradicts.extend(memory.contradicts)
    message.strength = memory.strength
    return message


def to_version(version: Version, space: str) -> pb.Memory:
    """The contract's form of a version, without what depends on others."""
    content = version.content
    return pb.Memory(
        memory_id=version.memory_id,
        version_id=version.version_id,
        space=space,
        kind=pb.MemoryKind.ValueType(int(content.kind)),
        text=content.text,
        attributes={name: _to_attribute(value) for name, value in content.attributes.items()},
        subject=content.subject,
        person=content.person,
        confidence=content.confidence,
        sensitivity=pb.Sensitivity.ValueType(int(content.sensitivity)),
        provenance=map(_to_origin, content.provenance),
        valid_from=_time(content.valid_from),
        valid_until=_time(content.valid_until),
        create_time=clock.to_timestamp(version.create_time),
        update_time=clock.to_timestamp(version.update_time),
    )


def _time(value: int | None) -> Timestamp | None:
    return None if value is None else clock.to_timestamp(value)


def _to_attribute(attribute: Attribute) -> pb.AttributeValue:
    kind, value = attribute
    if kind == "time":
        return pb.AttributeValue(time=clock.to_timestamp(int(value)))
    return pb.AttributeValue(**{kind: value})  # type: ignore[arg-type]


def _to_origin(origin: Origin) -> pb.Provenance:
    time = clock.to_timestamp(origin.time)
    match origin.kind:
        case "run":
            return pb.Provenance(run_id=origin.id, time=time)
        case "message":
            return pb.Provenance(message_id=origin.id, time=time)
        case "document":
            span = pb.DocumentSpan(document_id=origin.id, start=origin.start, end=origin.end)
            return pb.Provenance(document=span, time=time)
        case _:
            return pb.Provenance(person=origin.id, time=time)


def to_stored(stored: Stored) -> pb.StoredMemory:
    """The contract's form of what became of a record."""
    return pb.StoredMemory(
        memory_id=stored.memory_id,
        outcome=pb.StoreOutcome.ValueType(int(stored.outcome)),
        version_id=stored.version_id,
        contradicts=stored.contradicts,
        proposal_id=stored.proposal_id,
    )


def to_space(space: Space) -> version_pb2.Space:
    """The contract's form of a space."""
    message = version_pb2.Space(
        space=space.space,
        head_commit_id=space.head,
        memory_count=space.memory_count,
        members=space.members,
        policy=version_pb2.SpacePolicy(
            review=space.policy.review, merge_likeness=space.policy.merge_likeness
        ),
        create_time=clock.to_timestamp(space.create_time),
        etag=str(space.etag),
    )
    for name in ("keep_versions", "half_life"):
        value = getattr(space.policy, name)
        if value is not None:
            getattr(message.policy, name).FromMicroseconds(value)
    return message


def to_commit(commit: Commit) -> version_pb2.Commit:
    """The contract's form of a commit."""
    return version_pb2.Commit(
        commit_id=commit.commit_id,
        space=commit.space,
        parent_ids=commit.parents,
        message=commit.message,
        author_id=commit.author_id,
        create_time=clock.to_timestamp(commit.create_time),
        added=commit.added,
        changed=commit.changed,
        removed=commit.removed,
    )


def to_branch(ref: Ref) -> version_pb2.Branch:
    """The contract's form of a branch."""
    return version_pb2.Branch(
        name=ref.name,
        head_commit_id=ref.commit_id,
        create_time=clock.to_timestamp(ref.create_time),
    )


def to_tag(ref: Ref) -> version_pb2.Tag:
    """The contract's form of a tag."""
    return version_pb2.Tag(
        name=ref.name,
        commit_id=ref.commit_id,
        create_time=clock.to_timestamp(ref.create_time),
    )


def to_conflicts(
    found: Iterable[tuple[str, Memory | None, Memory | None, Memory | None]],
) -> list[version_pb2.Conflict]:
    """The contract's form of what stands in the way of a merge."""
    return [
        version_pb2.Conflict(
            memory_id=memory_id, base=_maybe(base), ours=_maybe(ours), theirs=_maybe(theirs)
        )
        for memory_id, base, ours, theirs in found
    ]


def to_diffs(
    found: Iterable[tuple[str, Memory | None, Memory | None]],
) -> list[version_pb2.MemoryDiff]:
    """The contract's form of what differs."""
    return [
        version_pb2.MemoryDiff(memory_id=memory_id, before=_maybe(before), after=_maybe(after))
        for memory_id, before, after in found
    ]


def _maybe(memory: Memory | None) -> pb.Memory | None:
    return None if memory is None else to_memory(memory)


def to_change(turned: Turned) -> feed_pb.MemoryChange:
    """The contract's form of a change."""
    span = turned.span
    return feed_pb.MemoryChange(
        position=span.position,
        tenant_id=span.tenant_id,
        memory=_maybe(turned.memory),
        memory_id=span.memory_id,
        version_id=span.version_id,
        space=span.space,
        since=clock.to_timestamp(span.since),
        until=_time(span.until),
        erased=turned.memory is None,
    )


def to_proposal(proposal: Proposal) -> care_pb.Proposal:
    """The contract's form of a proposal."""
    version = Version(
        proposal.memory_id, proposal.record.content, proposal.create_time, proposal.create_time
    )
    return care_pb.Proposal(
        proposal_id=proposal.proposal_id,
        space=proposal.space,
        memory=to_version(version, proposal.space),
        state=care_pb.ProposalState.ValueType(int(proposal.state)),
        create_time=clock.to_timestamp(proposal.create_time),
        decided_by=proposal.decided_by,
    )


def to_erasure(erasure: Erasure) -> care_pb.Erasure:
    """The contract's form of an erasure."""
    ended = erasure.end_time is not None
    return care_pb.Erasure(
        erasure_id=erasure.erasure_id,
        person=erasure.person,
        state=care_pb.ERASURE_STATE_VERIFIED if ended else care_pb.ERASURE_STATE_RUNNING,
        erased_versions=erasure.erased_versions,
        verified_places=erasure.verified_places,
        create_time=clock.to_timestamp(erasure.create_time),
        end_time=_time(erasure.end_time),
        requested_by=erasure.requested_by,
    )
