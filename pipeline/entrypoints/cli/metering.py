"""What a batch took of its workers, as JSON and as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.entrypoints.cli.figures import counted, duration, rate, share

if TYPE_CHECKING:  # the stores are imported by the commands that open them
    from pipeline.ports.meters import BatchMeters

Document = dict[str, object]

_US_PER_SECOND: Final = 1_000_000
_MILLIJOULES_PER_WH: Final = 3_600_000


def meters_document(meters: BatchMeters) -> Document:
    """Return what is known of the attempts that ran a batch; shares from 0 to 1, null where nothing measured it."""
    return {
        "attempts": meters.attempts,
        "fingerprints": list(meters.fingerprints),
        "engine_seconds": _seconds(meters.engine_us),
        "bubble_seconds": _seconds(meters.bubble_us),
        "cpu_seconds": _seconds(meters.cpu_us),
        "tokens_per_engine_second": _rounded(speed(meters), 1),
        "occupancy": _rounded(occupancy(meters), 4),
        "padding_share": _rounded(padding_share(meters), 4),
        "cached_share": _rounded(cached_share(meters), 4),
        "bubble_share": _rounded(bubble_share(meters), 6),
        "engine_steps": meters.engine_steps,
        "tokens": {
            "prefilled": meters.tokens_prefilled,
            "cached": meters.tokens_cached,
            "generated": meters.tokens_generated,
            "padding": meters.tokens_padding,
        },
        "memory_peak_bytes": meters.memory_peak_bytes,
        "energy_wh": _rounded(energy_wh(meters), 6),
        "energy_sources": list(meters.energy_sources),
    }


def meters_facts(meters: BatchMeters) -> dict[str, str]:
    """Return the same for people, less what nothing measured."""
    if not meters.attempts:
        return {}
    facts = {"computed by": ", ".join(meters.fingerprints) or "-", "attempts": counted(meters.attempts, "attempt")}
    if meters.engine_us is not None and (found := speed(meters)) is not None:
        facts["engine"] = f"{duration(meters.engine_us / _US_PER_SECOND)}, {rate(found)} tokens/s in and out"
    shares = {
        "full": occupancy(meters),
        "padding": padding_share(meters),
        "prompts from cache": cached_share(meters),
        "bubble": bubble_share(meters),
    }
    if known := [f"{share(value)} {name}" for name, value in shares.items() if value is not None]:
        facts["occupancy"] = ", ".join(known)
    energy = energy_wh(meters)
    if energy is not None:
        facts["energy"] = f"{energy:.4g} Wh ({', '.join(meters.energy_sources)})"
    return facts


def speed(meters: BatchMeters) -> float | None:
    """Return the batch's tokens, in and out, by second inside the engine's steps."""
    return meters.tokens * _US_PER_SECOND / meters.engine_us if meters.engine_us else None


def occupancy(meters: BatchMeters) -> float | None:
    """Return which share of the slots held a row, over all steps."""
    return _share(meters.slot_steps_busy, meters.slot_steps)


def padding_share(meters: BatchMeters) -> float | None:
    """Return which share of the computed tokens was padding."""
    if not meters.tokens_padding:
        return None if meters.tokens_padding is None else 0.0
    if meters.tokens_prefilled is None:
        return None
    computed = meters.tokens_prefilled + (meters.tokens_generated or 0)
    return _share(meters.tokens_padding, meters.tokens_padding + computed)


def cached_share(meters: BatchMeters) -> float | None:
    """Return which share of the input tokens was taken from another row's prefix."""
    if meters.tokens_cached is None or meters.tokens_prefilled is None:
        return None
    return _share(meters.tokens_cached, meters.tokens_cached + meters.tokens_prefilled)


def bubble_share(meters: BatchMeters) -> float | None:
    """Return for which share of the time that it ran or could have run the engine was empty."""
    if meters.bubble_us is None or meters.engine_us is None:
        return None
    return _share(meters.bubble_us, meters.bubble_us + meters.engine_us)


def energy_wh(meters: BatchMeters) -> float | None:
    """Return the energy in watt hours."""
    return None if meters.energy_millijoules is None else meters.energy_millijoules / _MILLIJOULES_PER_WH


def _share(part: int | None, whole: int | None) -> float | None:
    # Shares of two counters are rounded apart, which can put a full one a hair above the whole.
    return None if part is None or not whole else min(1.0, part / whole)


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else round(microseconds / _US_PER_SECOND, 3)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
