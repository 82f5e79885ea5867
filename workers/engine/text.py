"""Between text and tokens: prompts in bulk, and answers with stop strings cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.parameters import prompt_of, text_of
from pipeline.ports.engine import EngineRequest
from workers.engine.answers import attempted

#: What decoding puts for bytes that are not yet, or never will be, a character.
REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def prompts_of(tokenizer: Any, requests: Sequence[EngineRequest]) -> list[list[int] | Exception]:  # noqa: ANN401 -- transformers has no types
    """Return each request's prompt tokens, or what went wrong with that one."""
    prompts: list[list[int] | Exception] = []
    for endpoint in (Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS):
        if all(request.endpoint is endpoint for request in requests):
            return _prompts(tokenizer, endpoint, requests)
    for request in requests:
        prompts += _prompts(tokenizer, request.endpoint, [request])
    return prompts


def _prompts(tokenizer: Any, endpoint: Endpoint, requests: Sequence[EngineRequest]) -> list[list[int] | Exception]:  # noqa: ANN401 -- as above
    texts = [attempted(partial(_prompt_text, tokenizer), request) for request in requests]
    # A chat template writes the begin token itself.
    special = endpoint is Endpoint.COMPLETIONS
    good = [text for text in texts if isinstance(text, str)]
    tokens = iter(_tokens(tokenizer, good, special=special))
    return [next(tokens) if isinstance(text, str) else text for text in texts]


def _tokens(tokenizer: Any, texts: list[str], *, special: bool) -> list[list[int] | Exception]:  # noqa: ANN401 -- as above
    if not texts:
        return []
    try:
        ids: list[list[int] | Exception] = list(tokenizer(texts, add_special_tokens=special)["input_ids"])
    except Exception as error:  # noqa: BLE001 -- such as half a surrogate pair: find the row it belongs to
        if len(texts) == 1:
            return [error]
        middle = len(texts) // 2
        first = _tokens(tokenizer, texts[:middle], special=special)
        return first + _tokens(tokenizer, texts[middle:], special=special)
    return ids


def _prompt_text(tokenizer: Any, request: EngineRequest) -> str:  # noqa: ANN401 -- as above
    if request.endpoint is Endpoint.COMPLETIONS:
        return prompt_of(request.body)
    if request.endpoint is not Endpoint.CHAT_COMPLETIONS or not tokenizer.chat_template:
        raise RequestRefusedError(
            f"This model does not serve {request.endpoint.value}.", code="unsupported_endpoint", param="body.model"
        )
    messages = [_plain(message) for message in request.body["messages"]]
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        # Templates refuse what their model was not trained on, such as two user turns in a row.
        raise RequestRefusedError(
            f"The model's chat template refuses these messages: {str(error)[:200]}",
            code="invalid_value",
            param="body.messages",
        ) from error


def _plain(message: Mapping[str, Any]) -> dict[str, str]:
    """Return what a chat template knows: OpenAI's `developer` is its `system`, parts are one text, names are dropped."""
    role = message["role"]
    return {"role": "system" if role == "developer" else role, "content": text_of(message["content"])}


class StopFinder:
    """Watches one answer grow and says when a stop string has appeared.

    Decodes a window of the last few tokens at each push, never the whole answer. The window starts at a token
    after which the text was whole, as in text-generation-inference's `decode_token`.
    """

    __slots__ = ("_read", "_start", "_stops", "_text", "_tokenizer", "_tokens_min")

    def __init__(self, tokenizer: Any, stops: tuple[str, ...], tokens_min: int = 0) -> None:  # noqa: ANN401 -- as above
        """Watch for any of `stops`, which are not empty, in what comes after the first `tokens_min` tokens."""
        self._tokenizer = tokenizer
        self._stops = stops
        self._tokens_min = tokens_min
        self._text = ""
        self._start = 0
        self._read = 0

    def found(self, tokens: list[int]) -> bool:
        """Return whether a stop string stands in the answer `tokens`, one longer than at the last call."""
        known = decoded(self._tokenizer, tokens[self._start : self._read])
        window = decoded(self._tokenizer, tokens[self._start :])
        if len(window) <= len(known) or window.endswith(REPLACEMENT):
            return False
        before = len(self._text)
        self._text += window[len(known) :]
        self._start, self._read = self._read, len(tokens)
        return len(tokens) > self._tokens_min and _stop_place(self._text, self._stops, before) is not None


def decoded(tokenizer: Any, tokens: list[int]) -> str:  # noqa: ANN401 -- as above
    """Return the text of `tokens` without special tokens."""
    return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def answer_text(tokenizer: Any, tokens: list[int], stops: tuple[str, ...], tokens_min: int = 0) -> str:  # noqa: ANN401 -- as above
    """Return the answer: cut before the first stop string, and never ending in part of a character.

    Stop strings inside the first `tokens_min` tokens are text like any other.
    """
    text = decoded(tokenizer, tokens)
    before = len(decoded(tokenizer, tokens[:tokens_min]).rstrip(REPLACEMENT)) if stops and tokens_min else 0
    place = _stop_place(text, stops, before)
    return text.rstrip(REPLACEMENT) if place is None else text[:place]


def _stop_place(text: str, stops: tuple[str, ...], before: int) -> int | None:
    """Return where the first stop string begins that ends beyond the first `before` characters of `text`."""
    found = [text.find(stop, max(0, before - len(stop) + 1)) for stop in stops]
    return min((place for place in found if place >= 0), default=None)
