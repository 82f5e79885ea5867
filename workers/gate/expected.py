"""Expected answers: how each kind reads an answer, and when what it read is right.

Reading and judging are apart because two wrong answers are compared by what was read of them: "(B)" and "B." are the
same choice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

#: Matched against answers of bounded length; long patterns are programs.
PATTERN_CHARS_MAX: Final = 2000

_ANSWER_IS: Final = r"(?i:answer(?:\s+is)?)\s*[:=]?\s*[(\[*\"']*({labels})(?![\w'])"
_AT_START: Final = r"[\s(\[*\"']*({labels})\s*(?:[)\].:*,\"']|$|\n)"
_NUMBER: Final = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-+]?\.\d+")


class BadExpectedError(ValueError):
    """An expected answer is not written as it should be; `field` is what is wrong in it."""

    def __init__(self, field: str, message: str) -> None:
        """Keep the field, below `expected`, and what is accepted there."""
        super().__init__(message)
        self.field = field
        self.message = message


class Expected(Protocol):
    """What an answer is compared with."""

    def read(self, answer: str) -> str:
        """Return what the answer says, in a form that is equal for equal answers."""

    def is_met(self, reading: str) -> bool:
        """Say whether what `read` returned is right."""


def plain(answer: str) -> str:
    """Return the answer with its white space made single: what the comparison of two free texts looks at."""
    return " ".join(answer.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """The whole answer is one of `texts`, white space aside."""

    texts: tuple[str, ...]
    ignores_case: bool = False

    def read(self, answer: str) -> str:
        """Return the answer, its white space made single."""
        return plain(answer).casefold() if self.ignores_case else plain(answer)

    def is_met(self, reading: str) -> bool:
        """Say whether it is one of the texts."""
        return reading in {self.read(text) for text in self.texts}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The answer chooses `label` among `labels`."""

    label: str
    labels: tuple[str, ...]

    def read(self, answer: str) -> str:
        """Return the label chosen: after the word "answer", or at the start and set off; empty where there is none.

        A label inside a sentence does not count: "A" is a word too.
        """
        labels = "|".join(re.escape(label) for label in sorted(self.labels, key=len, reverse=True))
        found = re.search(_ANSWER_IS.format(labels=labels), answer) or re.match(_AT_START.format(labels=labels), answer)
        return found[1] if found else ""

    def is_met(self, reading: str) -> bool:
        """Say whether it is the label."""
        return reading == self.label


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """The pattern is found in the answer."""

    pattern: re.Pattern[str]

    def read(self, answer: str) -> str:
        """Return the answer."""
        return plain(answer)

    def is_met(self, reading: str) -> bool:
        """Say whether the pattern is found."""
        return self.pattern.search(reading) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contains:
    """Every one of `texts` stands in the answer."""

    texts: tuple[str, ...]
    ignores_case: bool = False

    def read(self, answer: str) -> str:
        """Return the answer, its white space made single."""
        return plain(answer).casefold() if self.ignores_case else plain(answer)

    def is_met(self, reading: str) -> bool:
        """Say whether each text stands in it."""
        return all((text.casefold() if self.ignores_case else text) in reading for text in map(plain, self.texts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """The last number in the answer is `value`, give or take `tolerance`."""

    value: float
    tolerance: float = 0.0

    def read(self, answer: str) -> str:
        """Return the last number, without thousands separators; empty where there is none."""
        found = _NUMBER.findall(answer)
        return repr(float(found[-1].replace(",", ""))) if found else ""

    def is_met(self, reading: str) -> bool:
        """Say whether it is near enough."""
        return bool(reading) and abs(float(reading) - self.value) <= self.tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieves:
    """One of the documents `custom_ids` is among the `nearest` documents of the query's embedding."""

    custom_ids: tuple[str, ...]
    nearest: int = 1


def expected_of(value: object) -> Expected | Retrieves:
    """Return the expected answer that the JSON `value` of a line's `expected` asks for.

    Raises:
        BadExpectedError: It is none of the forms of docs/gate.md.
    """
    if isinstance(value, str):
        return Exact(texts=(value,))
    if not isinstance(value, dict):
        raise BadExpectedError("", "expected a string or an object")
    kinds = [key for key in value if key in _FORMS]
    if len(kinds) != 1:
        raise BadExpectedError("", "expected exactly one of " + ", ".join(_FORMS))
    make, others = _FORMS[kinds[0]]
    if unknown := sorted(value.keys() - {kinds[0], *others}):
        raise BadExpectedError(
            unknown[0], f"unknown; beside {kinds[0]} there may be: " + (", ".join(others) or "nothing")
        )
    return make(value)


# --- forms -------------------------------------------------------------------------------------


def _exact(value: Mapping[str, Any]) -> Exact:
    return Exact(texts=_texts(value, "exact"), ignores_case=_flag(value, "ignore_case"))


def _one_of(value: Mapping[str, Any]) -> Exact:
    return Exact(texts=_texts(value, "one_of"), ignores_case=_flag(value, "ignore_case"))


def _choice(value: Mapping[str, Any]) -> Choice:
    label = value["choice"]
    if not isinstance(label, str) or not label:
        raise BadExpectedError("choice", "expected a non-empty string")
    labels = _texts(value, "choices") if "choices" in value else ("A", "B", "C", "D")
    if label not in labels:
        raise BadExpectedError("choice", "it is not among choices: " + ", ".join(labels))
    return Choice(label=label, labels=labels)


def _regex(value: Mapping[str, Any]) -> Matches:
    pattern = value["regex"]
    if not isinstance(pattern, str) or not 0 < len(pattern) <= PATTERN_CHARS_MAX:
        raise BadExpectedError("regex", f"expected a pattern of 1 to {PATTERN_CHARS_MAX} characters")
    try:
        return Matches(pattern=re.compile(pattern, re.IGNORECASE if _flag(value, "ignore_case") else 0))
    except (re.error, OverflowError, RecursionError) as error:
        raise BadExpectedError("regex", f"not a regular expression: {error}") from None


def _contains(value: Mapping[str, Any]) -> Contains:
    return Contains(texts=_texts(value, "contains"), ignores_case=_flag(value, "ignore_case"))


def _number(value: Mapping[str, Any]) -> Number:
    tolerance = _finite(value, "tolerance") if "tolerance" in value else 0.0
    if tolerance < 0:
        raise BadExpectedError("tolerance", "expected a number of at least 0")
    return Number(value=_finite(value, "number"), tolerance=tolerance)


def _retrieves(value: Mapping[str, Any]) -> Retrieves:
    nearest = value.get("nearest", 1)
    if type(nearest) is not int or nearest < 1:
        raise BadExpectedError("nearest", "expected an integer of at least 1")
    return Retrieves(custom_ids=_texts(value, "retrieves"), nearest=nearest)


_FORMS: Final[Mapping[str, tuple[Callable[[Mapping[str, Any]], Expected | Retrieves], tuple[str, ...]]]] = (
    MappingProxyType(
        {
            "exact": (_exact, ("ignore_case",)),
            "one_of": (_one_of, ("ignore_case",)),
            "choice": (_choice, ("choices",)),
            "regex": (_regex, ("ignore_case",)),
            "contains": (_contains, ("ignore_case",)),
            "number": (_number, ("tolerance",)),
            "retrieves": (_retrieves, ("nearest",)),
        }
    )
)


def _texts(value: Mapping[str, Any], field: str) -> tuple[str, ...]:
    given = value[field]
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise BadExpectedError(field, "expected a non-empty string, or an array of such")
    return tuple(texts)


def _flag(value: Mapping[str, Any], field: str) -> bool:
    given = value.get(field, False)
    if not isinstance(given, bool):
        raise BadExpectedError(field, "expected true or false")
    return given


def _finite(value: Mapping[str, Any], field: str) -> float:
    given = value[field]
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise BadExpectedError(field, "expected a number")
    return float(given)
