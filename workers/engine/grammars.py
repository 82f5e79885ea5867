"""Constraints compiled for one tokenizer by llguidance: which tokens may come next, row by row.

A mask costs tens of microseconds of processor time for each constrained row and step; other rows never come here.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any, Final, assert_never

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.constraints import Constraint, ConstraintKind
from pipeline.domain.errors import RequestRefusedError

#: Compiled constraints kept: rows of one batch mostly share theirs.
_KEPT_MAX: Final = 64
_MESSAGE_CHARS_MAX: Final = 300
#: Between JSON's tokens. Bounded, since a small model may otherwise write white space until its bound.
_WHITESPACE: Final = r"[ \n\r\t]{0,64}"


class Grammars:
    """The constraints that rows of one engine ask for."""

    def __init__(self, tokenizer: Any, end_tokens: frozenset[int], vocabulary: int) -> None:  # noqa: ANN401 -- transformers has no types
        """Compile for `tokenizer`; `end_tokens` are those of the model, `vocabulary` is how many logits it gives."""
        self._tokenizer = tokenizer
        self._end_tokens = end_tokens
        self._vocabulary = vocabulary
        #: llguidance's view of the vocabulary; reading it takes a second, so only when a row needs it.
        self._read: Any = None
        self._compiled: OrderedDict[Constraint, Any] = OrderedDict()

    def matcher(self, constraint: Constraint) -> Matcher:
        """Return a matcher at the beginning of an answer.

        Raises:
            RequestRefusedError: The constraint is malformed, or says more than can be followed.
        """
        compiled = self._compiled.get(constraint)
        if compiled is None:
            compiled = self._compiled[constraint] = self._compile(constraint)
            if len(self._compiled) > _KEPT_MAX:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(constraint)
        return Matcher(compiled.deep_copy(), self._read.vocab_size, self._vocabulary)

    def _compile(self, constraint: Constraint) -> Any:  # noqa: ANN401 -- llguidance is imported where it is used
        try:
            import llguidance
        except ImportError as error:
            raise _unsupported(constraint, "without llguidance, which this worker has not") from error

        if self._read is None:
            self._read = self._read_vocabulary(constraint)
        matcher = llguidance.LLMatcher(self._read, _grammar(constraint), log_level=0)
        if matcher.is_error():
            why = " ".join(matcher.get_error().split())[:_MESSAGE_CHARS_MAX]
            raise RequestRefusedError(
                f"Invalid value for '{constraint.param}': {why}",
                code="invalid_value",
                param=f"body.{constraint.param}",
            )
        return matcher

    def _read_vocabulary(self, constraint: Constraint) -> Any:  # noqa: ANN401 -- as above
        from llguidance.hf import from_tokenizer

        if not self._end_tokens or not getattr(self._tokenizer, "is_fast", False):
            raise _unsupported(constraint, "with this model's tokenizer")
        size = max(self._vocabulary, len(self._tokenizer))
        return from_tokenizer(self._tokenizer, n_vocab=size, eos_token=sorted(self._end_tokens))


class Matcher:
    """How far one answer has come in its form."""

    __slots__ = ("_bits", "_matcher", "_vocabulary")

    def __init__(self, matcher: Any, tokens: int, vocabulary: int) -> None:  # noqa: ANN401 -- as above
        """Follow llguidance's `matcher`, which knows `tokens`, for a model that gives `vocabulary` logits."""
        self._matcher = matcher
        self._bits = np.zeros(-(-tokens // 32), dtype=np.int32)
        self._vocabulary = vocabulary

    @property
    def is_complete(self) -> bool:
        """Say whether the answer has its form and nothing can be added to it."""
        return bool(self._matcher.is_stopped())

    def forbidden(self) -> NDArray[np.bool_] | None:
        """Return which tokens cannot come next; None where the matcher gave up, which `accept` will say."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            return None
        allowed = np.unpackbits(self._bits.view(np.uint8), count=self._vocabulary, bitorder="little")
        forbidden: NDArray[np.bool_] = allowed == 0
        return forbidden

    def accept(self, token: int) -> None:
        """Take the token that was chosen.

        Raises:
            RuntimeError: It cannot come here, or the matcher gave up; an answer would not have its form.
        """
        if not self._matcher.consume_token(token):
            raise RuntimeError("the constraint cannot be followed any further")


def _unsupported(constraint: Constraint, why: str) -> RequestRefusedError:
    return RequestRefusedError(
        f"Parameter '{constraint.param}' is not supported {why}.",
        code="unsupported_parameter",
        param=f"body.{constraint.param}",
    )


def _grammar(constraint: Constraint) -> str:
    """Return the constraint in llguidance's language."""
    import llguidance

    match constraint.kind:
        case ConstraintKind.JSON_SCHEMA:
            return llguidance.LLMatcher.grammar_from_json_schema(
                constraint.text, overrides={"whitespace_pattern": _WHITESPACE}
            )
        case ConstraintKind.REGEX:
            return llguidance.LLMatcher.grammar_from_regex(constraint.text)
        case ConstraintKind.CHOICE:
            return llguidance.LLMatcher.grammar_from_lark(
                "start: " + " | ".join(json.dumps(text, ensure_ascii=False) for text in constraint.choices)
            )
        case _:
            assert_never(constraint.kind)
