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
    labels: Sequence[str] | None = None,
) -> Terms:
    """Return the terms, or raise `UsageError` for the first option that makes no sense."""
    chosen = tier_of(tier)
    window = window or load_settings().window_of(chosen)
    parse_window(window)
    check_text(idempotency_key or "")
    return Terms(
        tier=chosen,
        window=window,
        budget_micros=None if max_cost is None else micros_of(max_cost),
        metadata=parse_pairs(meta or (), option="--meta") or None,
        labels=parse_pairs(labels or (), option="--label") or None,
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


def parse_pairs(pairs: Sequence[str], *, option: str) -> dict[str, str]:
    """Return what an option that repeats says as KEY=VALUE, or raise `UsageError` for the first that makes no sense."""
    found: dict[str, str] = {}
    for pair in pairs:
        check_text(pair)
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f"{option} {pair!r} is not KEY=VALUE", hint=f"such as {option} team=search")
        if len(key) > METADATA_KEY_CHARS_MAX or len(value) > METADATA_VALUE_CHARS_MAX:
            raise UsageError(
                f"{option} {key[:METADATA_KEY_CHARS_MAX]!r} is too long",
                hint=f"{METADATA_KEY_CHARS_MAX} characters for a key, {METADATA_VALUE_CHARS_MAX} for a value",
            )
        if "\0" in pair:
            raise UsageError(f"{option} {key!r} has a NUL character", hint="any other is accepted")
        if key in found:
            raise UsageError(f"{option} {key!r} is given twice", hint="each key has one value")
        found[key] = value
    if len(found) > METADATA_PAIRS_MAX:
        raise UsageError(f"more than {METADATA_PAIRS_MAX} {option}", hint="keep the rest on your side")
    return found


def check_text(text: str) -> None:
    """Raise `UsageError` for what a terminal let through that no database holds."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{text!r} is not UTF-8") from error
