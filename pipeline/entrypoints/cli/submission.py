"""From the options of `run` and `submit` to the terms of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pipeline.config import load_settings
from pipeline.domain.errors import UsageError
from pipeline.domain.limits import METADATA_KEY_CHARS_MAX, METADATA_PAIRS_MAX, METADATA_VALUE_CHARS_MAX
from pipeline.domain.moments import parse_moment
from pipeline.domain.tiers import Tier
from pipeline.domain.windows import parse_window
from pipeline.entrypoints.cli.figures import micros_of
from pipeline.ports.desk import Terms


def parse_terms(
    *,
    tier: str,
    window: str | None,
    max_cost: str | None,
    meta: Sequence[str] | None,
    idempotency_key: str | None,
    hold_until: str | None = None,
    priority: int | None = None,
) -> Terms:
    """Return the terms, or raise `UsageError` for the first option that makes no sense."""
    chosen = tier_of(tier)
    window = window or load_settings().window_of(chosen)
    parse_window(window)
    for text in (*(meta or ()), idempotency_key or ""):
        check_text(text)
    return Terms(
        tier=chosen,
        window=window,
        budget_micros=None if max_cost is None else micros_of(max_cost),
        metadata=_parse_metadata(meta or ()) or None,
        idempotency_key=idempotency_key,
        hold_until=None if hold_until is None else moment_of(hold_until, option="--hold-until"),
        priority=priority or 0,
    )


def tier_of(text: str) -> Tier:
    """Return the tier of that name, or raise `UsageError`."""
    try:
        return Tier(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a tier", hint=f"there are {', '.join(Tier)}") from error


def moment_of(text: str, *, option: str) -> datetime:
    """Return the instant that an option names, as seen from this machine; raises `UsageError`."""
    return parse_moment(text, now=datetime.now().astimezone(), option=option)


def _parse_metadata(pairs: Sequence[str]) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f"--meta {pair!r} is not KEY=VALUE")
        if len(key) > METADATA_KEY_CHARS_MAX or len(value) > METADATA_VALUE_CHARS_MAX:
            raise UsageError(
                f"--meta {key[:METADATA_KEY_CHARS_MAX]!r} is too long",
                hint=f"{METADATA_KEY_CHARS_MAX} characters for a key, {METADATA_VALUE_CHARS_MAX} for a value",
            )
        if key in metadata:
            raise UsageError(f"--meta {key!r} is given twice")
        metadata[key] = value
    if len(metadata) > METADATA_PAIRS_MAX:
        raise UsageError(f"more than {METADATA_PAIRS_MAX} --meta", hint="keep the rest on your side")
    return metadata


def check_text(text: str) -> None:
    """Raise `UsageError` for what a terminal let through that no database holds."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{text!r} is not UTF-8") from error
