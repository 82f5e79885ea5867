"""Fields of paths that change from firing to firing: `/data/in-{date}.jsonl`, `out/{date:%Y/%m/%d}.jsonl`.

Each is a time of the firing's zone: that at which it was to fire, not that at which somebody came to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo

from pipeline.domain.errors import UsageError
from pipeline.domain.limits import PATH_CHARS_MAX

#: What a field may be formatted by. No name of a month or day: these depend on a machine's language.
DIRECTIVES: Final = ("%Y", "%m", "%d", "%H", "%M", "%j", "%G", "%V", "%u")

_PIECE: Final = re.compile(r"\{\{|\}\}|\{(?P<field>[^{}]*)\}|[{}]")
_DIRECTIVE: Final = re.compile(r"%.?", re.DOTALL)


def _same(local: datetime) -> date:
    return local


def _day_before(local: datetime) -> date:
    return local.date() - timedelta(days=1)


#: Of each field: what it is of, and how it is written without a format of its own (None: always so).
_FIELDS: Final[Mapping[str, tuple[Callable[[datetime], date], str]]] = MappingProxyType(
    {
        "date": (_same, "%Y-%m-%d"),
        "yesterday": (_day_before, "%Y-%m-%d"),
        "month": (_same, "%Y-%m"),
        "week": (_same, "%G-W%V"),
        "hour": (_same, "%H"),
        "minute": (_same, "%M"),
    }
)
_FORMATTED: Final = ("date", "yesterday")
_UTC_FIELD: Final = "utc"
ACCEPTED: Final = (
    f"{', '.join(f'{{{name}}}' for name in (*_FIELDS, _UTC_FIELD))}; "
    f"{' and '.join(f'{{{name}:…}}' for name in _FORMATTED)} with {' '.join(DIRECTIVES)}; {{{{ and }}}} for braces"
)


def check_template(template: str, *, option: str) -> str:
    """Return the template, or raise `UsageError` naming the field that is not known and those that are."""
    if not template.strip() or "\x00" in template:
        raise UsageError(f"{option}: {template!r} is not a path")
    if len(template) > PATH_CHARS_MAX:
        raise UsageError(f"{option}: the path is longer than {PATH_CHARS_MAX} characters")
    for piece in _PIECE.finditer(template):
        _check_piece(piece, option)
    return template


def render(template: str, at: datetime, zone: ZoneInfo) -> str:
    """Return the path of the firing of that instant; the template must have been checked."""
    local = at.astimezone(zone)

    def written(piece: re.Match[str]) -> str:
        field = piece["field"]
        if field is None:
            return piece[0][0]
        name, _, layout = field.partition(":")
        if name == _UTC_FIELD:
            return at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        take, usual = _FIELDS[name]
        return _formatted(take(local), layout or usual)

    return _PIECE.sub(written, template)


def _formatted(moment: date, layout: str) -> str:
    # Year by year, since strftime leaves a year's zeros to the platform.
    return _DIRECTIVE.sub(lambda found: f"{moment.year:04d}" if found[0] == "%Y" else moment.strftime(found[0]), layout)


def _check_piece(piece: re.Match[str], option: str) -> None:
    field = piece["field"]
    if field is None:
        if piece[0] in {"{", "}"}:
            raise UsageError(f"{option}: a brace stands alone", hint=f"there are {ACCEPTED}")
        return
    name, has_layout, layout = field.partition(":")
    if name not in _FIELDS and name != _UTC_FIELD:
        raise UsageError(f"{option}: {{{field}}} is not known", hint=f"there are {ACCEPTED}")
    if has_layout and (name not in _FORMATTED or not layout):
        raise UsageError(f"{option}: {{{field}}} takes no such format", hint=f"there are {ACCEPTED}")
    for directive in _DIRECTIVE.findall(layout):
        if directive not in DIRECTIVES:
            raise UsageError(f"{option}: {directive!r} in {{{field}}} is not known", hint=f"there are {ACCEPTED}")
