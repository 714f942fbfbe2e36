"""Agents' messages on the wire."""

from __future__ import annotations

from dataclasses import asdict

from plexus.agents.v1 import agent_pb2, run_pb2
from plexus.agents.v1 import agents_service_pb2 as pb
from plexus.context.v1 import source_pb2
from plexus.errors.v1.errors_pb2 import ErrorReason

from services.agents.domain import (
    Agent,
    Cancelled,
    Citation,
    Completed,
    Event,
    Failed,
    Run,
    Source,
    Started,
    TextDelta,
    Usage,
)
from services.agents.service import Asked
from services.runtime import clock


def from_request(request: pb.ProcessRequest) -> Asked:
    """What is asked."""
    return Asked(
        input=request.input,
        agent_id=request.agent_id,
        session_id=request.session_id,
        idempotency_key=request.idempotency_key,
    )


def to_agent(agent: Agent) -> agent_pb2.Agent:
    """The contract's form of an agent."""
    return agent_pb2.Agent(
        agent_id=agent.agent_id,
        display_name=agent.display_name,
        instructions=agent.instructions,
        model=agent.model,
        default=agent.is_default,
        create_time=clock.to_timestamp(agent.create_time),
    )


def to_run(run: Run) -> run_pb2.Run:
    """The contract's form of a run."""
    return run_pb2.Run(
        run_id=run.run_id,
        agent_id=run.agent_id,
        session_id=run.session_id,
        user_id=run.user_id,
        input=run.input,
        state=run_pb2.RunState.ValueType(int(run.state)),
        output=run.output,
        failure=_failed(run.failure) if run.failure else None,
        usage=_usage(run.usage) if run.usage else None,
        last_sequence=run.last_sequence,
        create_time=clock.to_timestamp(run.create_time),
        end_time=clock.to_timestamp(run.end_time) if run.end_time else None,
    )


def to_event(run_id: str, event: Event) -> run_pb2.RunEvent:
    """The contract's form of an event."""
    message = run_pb2.RunEvent(
        sequence=event.sequence, run_id=run_id, time=clock.to_timestamp(event.time)
    )
    match event.happening:
        case Started(session_id, agent_id):
            message.run_started.session_id = session_id
            message.run_started.agent_id = agent_id
        case TextDelta(text):
            message.text_delta.text = text
        case Citation() as citation:
            message.citation.CopyFrom(_citation(citation))
        case Usage() as usage:
            message.usage.CopyFrom(_usage(usage))
        case Completed(message_id, truncated):
            message.run_completed.message_id = message_id
            message.run_completed.truncated = truncated
        case Failed() as failed:
            message.run_failed.CopyFrom(_failed(failed))
        case Cancelled(cancelled_by):
            message.run_cancelled.cancelled_by = cancelled_by
    return message


def _citation(citation: Citation) -> run_pb2.RunCitation:
    return run_pb2.RunCitation(
        source=_source(citation.source),
        cited_in=source_pb2.Span(start=citation.cited_in[0], end=citation.cited_in[1]),
        span=source_pb2.Span(start=citation.span[0], end=citation.span[1]),
        quote=citation.quote,
    )


def _source(source: Source) -> source_pb2.Source:
    fields = asdict(source)
    time = fields.pop("time")
    return source_pb2.Source(**fields, time=None if time is None else clock.to_timestamp(time))


def _usage(usage: Usage) -> run_pb2.Usage:
    return run_pb2.Usage(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, model=usage.model
    )


def _failed(failed: Failed) -> run_pb2.RunFailed:
    reason = ErrorReason.Value(f"ERROR_REASON_{failed.reason}")
    return run_pb2.RunFailed(reason=reason, message=failed.message)
