"""Traces: recorded arrivals, a JSON object on each line.

    {"at": 12.5, "tenant": "acme", "tier": "bulk", "model": "small", "rows": 1000, "input_tokens": 300000,
     "output_tokens": 90000, "window": "24h", "output_tokens_actual": 70000}

`at` (seconds), `rows`, `input_tokens` and `output_tokens` (of all rows, as intake estimates them) must be there;
the others are by default `tenant`, `standard`, `model`, the tier's window, and as many tokens as estimated.
Equal times keep the order of the lines.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NoReturn

from pipeline.domain.errors import NotFoundError, UsageError
from pipeline.domain.ids import BatchId, TenantId
from pipeline.domain.tiers import DEFAULT_WINDOWS, Tier
from pipeline.domain.windows import parse_window
from pipeline.ports.cycle import WorkSize
from scheduler.simulate.arrivals import Arrival

FIELDS: Final = (
    "at",
    "tenant",
    "tier",
    "model",
    "rows",
    "input_tokens",
    "output_tokens",
    "output_tokens_actual",
    "window",
)
_TOKENS_MAX: Final = 1e15
_ROWS_MAX: Final = 1e9
_AT_MAX: Final = 1e9


def read_trace(path: Path) -> tuple[Arrival, ...]:
    """Return the arrivals of a file in order of their times.

    Raises:
        NotFoundError: there is no such file.
        UsageError: a line is no arrival; the message names line and field, the hint says what would be accepted.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder", hint="name one file of arrivals") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path.name} is not UTF-8 (byte {error.start})", hint="write JSON lines in UTF-8") from None
    return arrivals_of(text.splitlines(), name=path.name)


def arrivals_of(lines: Iterable[str], *, name: str) -> tuple[Arrival, ...]:
    """Return the arrivals that these lines tell; empty lines are none."""
    found = sorted(
        (_Line(text, f"{name} line {number}").arrival(number) for number, text in enumerate(lines, 1) if text.strip()),
        key=lambda arrival: arrival[0],
    )
    if not found:
        raise UsageError(f"{name} has no arrivals", hint='a line is such as {"at": 0, "rows": 10, …}')
    return tuple(arrival for _, arrival in found)


class _Line:
    """One line, checked field by field."""

    def __init__(self, text: str, where: str) -> None:
        self._where = where
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise UsageError(f"{where} is not JSON: {error}", hint="one object on each line") from None
        if not isinstance(fields, dict):
            raise UsageError(f"{where} is not a JSON object", hint='write {"at": 0, "rows": 10, …}')
        self._fields: dict[str, Any] = fields
        if unknown := [field for field in fields if field not in FIELDS]:
            self._refuse(unknown[0], "is unknown", "known are " + ", ".join(FIELDS))

    def arrival(self, number: int) -> tuple[float, Arrival]:
        """Return the arrival, and what to sort it by."""
        at_seconds = self._number("at", most=_AT_MAX)
        rows = self._number("rows", least=1, most=_ROWS_MAX)
        if rows != int(rows):
            self._refuse("rows", f"{rows:g} is not a whole number", "write 1 or more")
        outputs = self._number("output_tokens", most=_TOKENS_MAX)
        actual = self._number("output_tokens_actual", most=_TOKENS_MAX, default=outputs)
        if actual and not outputs:
            self._refuse("output_tokens", "is 0 although some came", "write what is expected of them")
        tier = self._tier()
        return at_seconds, Arrival(
            batch_id=BatchId(f"batch_{number:06d}"),
            tenant_id=TenantId(self._text("tenant", "tenant")),
            tier=tier,
            model=self._text("model", "model"),
            at_seconds=at_seconds,
            window_seconds=self._window(tier),
            estimated=WorkSize(
                rows=int(rows), input_tokens=self._number("input_tokens", most=_TOKENS_MAX), output_tokens=outputs
            ),
            output_ratio=actual / outputs if outputs else 1.0,
            template=number,
        )

    def _number(self, field: str, *, most: float, least: float = 0, default: float | None = None) -> float:
        value = self._fields.get(field, default)
        accepted = f"write a number from {least:g} to {most:g}"
        if value is None:
            self._refuse(field, "is missing", accepted)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self._refuse(field, f"{value!r} is not a number", accepted)
        if not least <= value <= most:
            self._refuse(field, f"{value:g} is out of range", accepted)
        return float(value)

    def _text(self, field: str, default: str) -> str:
        value = self._fields.get(field, default)
        if not isinstance(value, str) or not value:
            self._refuse(field, f"{value!r} is not a name", "write some text")
        return value

    def _tier(self) -> Tier:
        value = self._fields.get("tier", Tier.STANDARD.value)
        if value not in list(Tier):
            self._refuse("tier", f"{value!r} is no tier", "known are " + ", ".join(Tier))
        return Tier(value)

    def _window(self, tier: Tier) -> float:
        try:
            return parse_window(self._text("window", DEFAULT_WINDOWS[tier])).total_seconds()
        except UsageError as error:
            self._refuse("window", f"{self._fields['window']!r} is not a window", error.hint or "")

    def _refuse(self, field: str, problem: str, accepted: str) -> NoReturn:
        raise UsageError(f"{self._where}: field {field!r} {problem}", hint=accepted)
