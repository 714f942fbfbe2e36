"""What a server of OpenAI's protocol is sent."""

from __future__ import annotations

import base64
from typing import Any

from services.llm.domain.generation import (
    AnswerFormat,
    Image,
    Message,
    Prompt,
    Role,
    Tool,
    ToolCall,
    ToolChoice,
)


def body_of(prompt: Prompt, limit_field: str) -> dict[str, Any]:
    """The body of a chat completion, but for the model.

    Args:
        prompt: What is asked.
        limit_field: What the server calls the longest answer.
    """
    body: dict[str, Any] = {
        "messages": list(map(_message, prompt.messages)),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if prompt.max_output_tokens is not None:
        body[limit_field] = prompt.max_output_tokens
    for name in ("temperature", "top_p"):
        value = getattr(prompt, name)
        if value is not None:
            # The contract's float has single precision: 0.7 would be sent as 0.699999988079071.
            body[name] = round(value, 6)
    if prompt.stop:
        body["stop"] = list(prompt.stop)
    if prompt.tools:
        body["tools"] = list(map(_tool, prompt.tools))
        if prompt.tool_choice is not None:
            body["tool_choice"] = _choice(prompt.tool_choice)
    if prompt.answer_format is not None:
        body["response_format"] = _format(prompt.answer_format)
    return body


def _message(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role.value, "content": message.text}
    if message.images:
        shown = [{"type": "image_url", "image_url": {"url": _url(each)}} for each in message.images]
        found["content"] = [{"type": "text", "text": message.text}, *shown]
    if message.tool_calls:
        found["tool_calls"] = list(map(_call, message.tool_calls))
        found["content"] = message.text or None
    if message.role is Role.TOOL:
        found["tool_call_id"] = message.tool_call_id
    return found


def _url(image: Image) -> str:
    if image.url:
        return image.url
    return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.tool_call_id, "type": "function", "function": function}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = dict(tool.parameters) or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.name:
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _format(wanted: AnswerFormat) -> dict[str, Any]:
    if wanted.schema is None:
        return {"type": "json_object"}
    schema = {"name": wanted.name or "answer", "schema": dict(wanted.schema)}
    return {"type": "json_schema", "json_schema": schema}
