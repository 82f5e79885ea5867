"""`/v1/responses` in its simple form, text in and text out: as a chat on the way in, from a chat's answer on the way out.

Engines know chats. What a response says beyond a chat's answer is what was asked, said again, as OpenAI does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pipeline.domain.checks import ROLES, refuse, refuse_type, refuse_value
from pipeline.domain.constraints import response_format

_MESSAGE_KEYS: Final = frozenset({"role", "content", "type", "id", "status"})
_TEXT_PARTS: Final = frozenset({"input_text", "output_text"})
_TEXT_KEYS: Final = frozenset({"format", "verbosity"})
_SCHEMA_KEYS: Final = ("name", "description", "schema", "strict")
#: Why an answer ends before it is complete, by a chat's `finish_reason`.
_INCOMPLETE: Final[Mapping[str, str]] = {"length": "max_output_tokens", "content_filter": "content_filter"}


def check_input(name: str, value: object) -> None:
    """Check what is asked: a text, or a conversation of text messages."""
    if isinstance(value, str):
        if not value:
            refuse_value(name, "expected a non-empty string")
        return
    if not isinstance(value, list):
        refuse_type(name, value, "a string or an array of messages")
    if not value:
        refuse_value(name, "expected at least one message")
    for index, item in enumerate(value):
        _check_message(f"{name}[{index}]", item)


def check_instructions(name: str, value: object) -> None:
    """Check what stands before the conversation."""
    if value is not None and not isinstance(value, str):
        refuse_type(name, value, "a string")


def check_text(name: str, value: object) -> None:
    """Check what form the answer is to have."""
    if value is None:
        return
    if not isinstance(value, dict):
        refuse_type(name, value, "an object")
    for key in value.keys() - _TEXT_KEYS:
        where = f"{name}.{str(key)[:64]}"
        refuse(f"Parameter '{where}' is not supported.", "unsupported_parameter", where)
    if value.get("verbosity") not in {None, "medium"}:
        refuse(
            f"Parameter '{name}.verbosity' is not supported with this value; only 'medium' is.",
            "unsupported_parameter",
            f"{name}.verbosity",
        )
    form = value.get("format")
    if form is not None and not isinstance(form, dict):
        refuse_type(f"{name}.format", form, "an object")
    response_format(f"{name}.format", _response_format(form))


def chat_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chat that a checked `body` asks for."""
    asked = body["input"]
    messages = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    messages += [{"role": "user", "content": asked}] if isinstance(asked, str) else [_message(item) for item in asked]
    form = (body.get("text") or {}).get("format")
    chat = {
        "model": body["model"],
        "messages": messages,
        "max_completion_tokens": body.get("max_output_tokens"),
        "temperature": body.get("temperature"),
        "top_p": body.get("top_p"),
        "response_format": _response_format(form),
    }
    return {name: value for name, value in chat.items() if value is not None}


def response_of(body: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response to `body` that a chat's `answer` is."""
    (choice,) = answer["choices"]
    mark = str(answer["id"]).removeprefix("chatcmpl-")
    why = _INCOMPLETE.get(choice["finish_reason"])
    status = "completed" if why is None else "incomplete"
    usage = answer["usage"]
    content = {"type": "output_text", "text": choice["message"]["content"], "annotations": [], "logprobs": []}
    message = {"id": f"msg_{mark}", "type": "message", "status": status, "role": "assistant", "content": [content]}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    more = {name: answer[name] for name in ("system_fingerprint", "nightrate") if name in answer}
    return {
        "id": f"resp_{mark}",
        "object": "response",
        "created_at": answer["created"],
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None if why is None else {"reason": why},
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": answer["model"],
        "output": [message],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 1.0 if body.get("temperature") is None else body["temperature"],
        "text": {"format": ((body.get("text") or {}).get("format")) or {"type": "text"}},
        "tool_choice": "none",
        "tools": [],
        "top_p": 1.0 if body.get("top_p") is None else body["top_p"],
        "truncation": "disabled",
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
        "user": body.get("user"),
        "metadata": body.get("metadata") or {},
        **more,
    }


def chat_answer_of(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chat's answer that a response was made of, as far as its text goes."""
    (message,) = response["output"]
    text = message["content"][0]["text"]
    finish_reason = "stop" if response["status"] == "completed" else "length"
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return {"model": response["model"], "choices": [choice]}


def _check_message(name: str, item: object) -> None:
    if not isinstance(item, dict):
        refuse_type(name, item, "an object")
    if item.get("type", "message") != "message":
        refuse(f"Only items of type 'message' are supported in '{name}'.", "unsupported_parameter", name)
    for key in item.keys() - _MESSAGE_KEYS:
        where = f"{name}.{str(key)[:64]}"
        refuse(f"Parameter '{where}' is not supported.", "unsupported_parameter", where)
    role = item.get("role")
    if not isinstance(role, str):
        refuse_type(f"{name}.role", role, "a string")
    if role not in ROLES:
        refuse_value(f"{name}.role", "expected one of " + ", ".join(sorted(ROLES)))
    content = item.get("content")
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        refuse_type(f"{name}.content", content, "a string or an array of text parts")
    if not content:
        refuse_value(f"{name}.content", "expected at least one text part")
    for index, part in enumerate(content):
        _check_part(f"{name}.content[{index}]", part)


def _check_part(name: str, part: object) -> None:
    if not isinstance(part, dict):
        refuse_type(name, part, "an object")
    if part.get("type") not in _TEXT_PARTS:
        refuse(f"Only parts of text are supported in '{name}'.", "unsupported_parameter", name)
    if not isinstance(part.get("text"), str):
        refuse_type(f"{name}.text", part.get("text"), "a string")


def _message(item: Mapping[str, Any]) -> dict[str, str]:
    content: str | Sequence[Mapping[str, str]] = item["content"]
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    return {"role": item["role"], "content": text}


def _response_format(form: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a chat's `response_format`, which has a level more than `text.format`."""
    if form is None or form.get("type") != "json_schema":
        return None if form is None else dict(form)
    schema = {key: form[key] for key in _SCHEMA_KEYS if key in form}
    rest = {key: value for key, value in form.items() if key not in _SCHEMA_KEYS}
    return {**rest, "json_schema": schema}
