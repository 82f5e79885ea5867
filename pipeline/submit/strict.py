"""What JSON leaves to its readers, decided: one meaning for every line, whoever parses it later.

Each test here is the exact, slow half of a check whose cheap half is in `envelope`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

#: A NUL escape whose backslash is not itself escaped: an even run of backslashes may stand before it.
_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class DuplicateKeyError(ValueError):
    """One object of the line has the same key twice; readers differ on which one counts."""

    def __init__(self, key: str) -> None:
        """Keep which key."""
        super().__init__(key)
        self.key = key


def is_nested_past(value: object, levels_max: int) -> bool:
    """Say whether objects and arrays stand in one another more than `levels_max` deep, `value` included."""
    level = [value] if isinstance(value, dict | list) else []
    levels = 0
    while level and levels <= levels_max:
        levels += 1
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]
    return levels > levels_max


def has_nul(line: bytes) -> bool:
    """Say whether a string of the valid JSON `line` holds U+0000."""
    return _ESCAPED_NUL.search(line) is not None


def check_keys(line: bytes) -> None:
    """Raise `DuplicateKeyError` where an object of the valid JSON `line` has a key twice."""
    # Numbers stay text: Python refuses to convert integers of more than 4,300 digits.
    json.loads(line, object_pairs_hook=_distinct, parse_int=str, parse_float=str)


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise DuplicateKeyError(key)
        seen.add(key)


def explain(line: bytes) -> str | None:
    """Return why `line`, which is no JSON, is none, where there is more to say than that; else None."""
    if line.startswith(b"\xef\xbb\xbf"):
        return "It starts with a UTF-8 byte order mark (BOM): save the file as UTF-8 without BOM."
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return f"It is not UTF-8: the byte at offset {error.start} cannot be decoded."
    if "\x00" in text:
        return f"It has a NUL byte at offset {line.index(0)}."
    try:
        value = json.loads(text)
    except RecursionError:
        return "It is nested too deeply."
    except ValueError:
        return None
    return _explain_value(value)


def _explain_value(value: object) -> str | None:
    """Explain a line that Python's parser takes and a strict one does not."""
    level = [value]
    while level:
        children: list[object] = []
        for each in level:
            if isinstance(each, dict):
                children += [*each.keys(), *each.values()]
            elif isinstance(each, list):
                children += each
            elif isinstance(each, float) and (each != each or each in (float("inf"), float("-inf"))):  # noqa: PLR0124  # NaN alone differs from itself
                return "It has a number that is NaN, infinite or too large."
            elif isinstance(each, str) and not each.isascii() and _has_surrogate(each):
                return "It has half of a surrogate pair in a string."
        level = children
    return None


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
