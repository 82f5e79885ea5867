"""Completion windows: `24h`, `90m`, `7d`, as OpenAI writes them and further."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from pipeline.domain.errors import UsageError
from pipeline.domain.limits import WINDOW_SECONDS_MAX, WINDOW_SECONDS_MIN

_WINDOW: Final = re.compile(r"(?P<count>[1-9][0-9]{0,5})(?P<unit>[mhd])", re.ASCII)
_UNIT_SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400}


def parse_window(text: str) -> timedelta:
    """Return the duration that `text` promises, or raise `UsageError` naming what is accepted."""
    match = _WINDOW.fullmatch(text)
    seconds = int(match["count"]) * _UNIT_SECONDS[match["unit"]] if match else 0
    if not WINDOW_SECONDS_MIN <= seconds <= WINDOW_SECONDS_MAX:
        raise UsageError(
            f"completion_window {text!r} is not a window",
            hint="write a whole number of minutes, hours or days from 1m to 30d, such as 24h",
        )
    return timedelta(seconds=seconds)
