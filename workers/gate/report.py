"""The gate's report as one JSON object: every figure with the number of items it was taken over."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Final

from workers.gate.divergence import HISTOGRAM_EDGES
from workers.gate.qualification import Qualification
from workers.gate.slices import Slice
from workers.gate.trial import Decision

#: Raised when a field changes its meaning or goes; new fields may come without.
SCHEMA: Final = "nightrate.gate.report/1"
CONFIDENCE: Final = 0.95


def report_of(found: Qualification) -> dict[str, Any]:
    """Return the report as JSON would hold it; shares are of 1, differences are variant minus reference."""
    return {
        "schema": SCHEMA,
        "comparison_key": found.comparison_key,
        "started_at": found.started_at.isoformat(),
        "ended_at": found.ended_at.isoformat(),
        "variant": found.variant.as_plain(),
        "reference": found.reference.as_plain(),
        "evaluation": {
            "name": found.evaluation,
            "digest": found.evaluation_digest,
            "endpoint": found.endpoint.value,
            "comparison": found.comparison.value,
            "items_available": found.items_available,
            "items_asked": found.items_asked,
            "items_compared": found.items_compared,
            "reference_errors": found.reference_errors,
            "variant_errors": found.variant_errors,
        },
        "settings": dataclasses.asdict(found.settings),
        "tiers": [
            {"tier": each.tier.value, "may_serve": each.may_serve, **_decision(each.decision)} for each in found.tiers
        ],
        "difference": {
            "value": found.difference,
            "interval": list(found.interval),
            "confidence": CONFIDENCE,
            "interval_holds": "at every moment together, so stopping early leaves it true",
            "n": found.items_compared,
        },
        "accuracy": _accuracy(found),
        "disagreement": {"share": found.disagreement_share, "n": found.items_compared},
        "slices": [_slice(each) for each in found.slices],
        "lengths": None if found.lengths is None else {**dataclasses.asdict(found.lengths), "confidence": CONFIDENCE},
        "divergence": _divergence(found),
        "cosine": _cosine(found),
        "pace": {**dataclasses.asdict(found.pace), "relative_cost": found.pace.relative_cost},
        "path": [
            {
                "n": point.items,
                "difference": point.difference,
                "interval": list(point.interval),
                "log10_within": [_log10(value) for value in point.log_within],
                "log10_against": [_log10(value) for value in point.log_against],
            }
            for point in found.path
        ],
        "test_state": dict(found.test_state),
    }


def write_report(found: Qualification, path: Path) -> None:
    """Write the report to `path`, in UTF-8."""
    path.write_text(json.dumps(report_of(found), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_outcomes(found: Qualification, path: Path) -> None:
    """Write one JSON line for each item asked, in the order they were asked."""
    with path.open("w", encoding="utf-8") as stream:
        for each in found.outcomes:
            stream.write(json.dumps(each.as_plain(), allow_nan=False) + "\n")


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "margin_points": decision.margin_points,
        "verdict": decision.verdict.value,
        "reason": decision.reason.value,
        "reason_sentence": decision.reason.sentence,
        "log10_evidence": _log10(decision.log_evidence),
        "n": decision.items,
    }


def _accuracy(found: Qualification) -> dict[str, Any] | None:
    pairs = found.pairs
    if pairs is None or found.fixed_interval is None:
        return None
    return {
        "reference": pairs.reference_accuracy,
        "variant": pairs.variant_accuracy,
        "both_right": pairs.both_right,
        "right_to_wrong": pairs.right_to_wrong,
        "wrong_to_right": pairs.wrong_to_right,
        "wrong_same": pairs.wrong_same,
        "wrong_to_wrong": pairs.wrong_to_wrong,
        "flips_share": pairs.flips_share,
        "changes_share": pairs.changes_share,
        "n": pairs.items,
        "for_a_fixed_number_of_items": {
            "mcnemar_exact_p": found.mcnemar_p,
            "newcombe_interval": list(found.fixed_interval),
            "confidence": CONFIDENCE,
        },
    }


def _slice(part: Slice) -> dict[str, Any]:
    return {
        "name": part.name,
        "difference": part.difference,
        "interval": list(part.interval),
        **part.tally.as_plain(),
        "p_worse_exact": part.p_value,
        "p_worse_holm": part.p_holm,
        "n": part.tally.items,
    }


def _divergence(found: Qualification) -> dict[str, Any] | None:
    if found.divergence is None:
        return None
    plain = dataclasses.asdict(found.divergence)
    plain["histogram"] = {"edges_nats": list(HISTOGRAM_EDGES), "positions": list(found.divergence.histogram)}
    return {**plain, "n": found.divergence.positions}


def _cosine(found: Qualification) -> dict[str, Any] | None:
    if found.cosine_mean is None:
        return None
    count = sum(each.cosine is not None for each in found.outcomes)
    return {"mean": found.cosine_mean, "p1": found.cosine_p1, "n": count}


def _log10(natural: float) -> float:
    return natural / math.log(10)
