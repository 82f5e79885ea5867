"""Words and settings given on the command line, made into values or refused with what is accepted."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

from pipeline.domain.errors import UsageError
from pipeline.domain.models import option_value

_Word = TypeVar("_Word", bound=StrEnum)


def chosen(words: type[_Word], given: str | None, what: str) -> _Word | None:
    """Return the enum's member for `given`, None for None; raises `UsageError` naming the words there are."""
    if given is None:
        return None
    if given not in set(words):
        raise UsageError(f"{given!r} is no {what}", hint=f"one of {', '.join(words)}")
    return words(given)


def chosen_all(words: type[_Word], given: Iterable[str] | None, what: str) -> list[_Word]:
    """Return the members for all that is given, in the enum's order, each once."""
    found = {chosen(words, each, what) for each in given or ()}
    return [word for word in words if word in found]


def options_given(pairs: Iterable[str] | None) -> dict[str, str | int | float | bool]:
    """Return settings from `key=value` words; numbers, true and false are what they look like."""
    options: dict[str, str | int | float | bool] = {}
    for pair in pairs or ():
        name, mark, value = pair.partition("=")
        if not name or not mark or not value:
            raise UsageError(f"{pair!r} is not a setting", hint="write it as KEY=VALUE, such as slots=128")
        if name in options:
            raise UsageError(f"{name} is given twice")
        options[name] = option_value(value)
    return options
