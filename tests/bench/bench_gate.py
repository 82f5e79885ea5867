"""Measure the accuracy gate's test: false verdicts, items needed, and verdicts on published quantization flips.

    python -m tests.bench.bench_gate [--data FOLDER] [--runs 20000] [--shuffles 200]

Prints one JSON object. `--data` is a folder with `results/<model>__<precision>__<benchmark>.json` and
`results/_bench_items.json`, as in the replication "[Re] Accuracy is Not All You Need on Current Small
Instruction-Tuned Models"; without it the last table is made of generated pairs.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist, median
from typing import Any

import numpy as np

from tests.bench.machine import machine
from tests.workers.gate.simulated import Evidence, Floats, first_crossings, gains, peaks
from workers.gate.evidence import log_evidence
from workers.gate.trial import ALPHA, WORSE_SHARE, SequentialTest, Verdict

ITEMS_MAX = 10_000
MARGINS = (1.0, 2.0, 3.0)
FLIPS = (0.01, 0.03, 0.06, 0.10, 0.20)
REJECTED_FLIPS = (0.03, 0.20)
THRESHOLD = math.log(1 / ALPHA)
SIX_SHARES = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.6])
POWER = 0.8


def six_shares(counts: Floats, mean_max: float) -> Floats:
    """The plain mixture of six bets with equal weights, to compare with."""
    grown = np.log(np.stack([1 + SIX_SHARES * (x - mean_max) for x in (-1, 0, 1)]))
    logs: Floats = counts @ grown
    highest = logs.max(axis=-1)
    total: Floats = highest + np.log(np.exp(logs - highest[..., None]).mean(axis=-1))
    return total


def false_verdicts(runs: int, seed: int) -> list[dict[str, Any]]:
    """Accept at the margin exactly, reject at a quarter of it exactly: both hypotheses at their edge."""
    rows = []
    for margin in MARGINS:
        for flips in FLIPS:
            if flips * 100 < margin:
                continue
            crossed = crossings(runs, seed, flips, -margin / 100, -margin / 100)
            rows.append(share_row("accepted", margin, -margin, flips, crossed))
        for flips in REJECTED_FLIPS:
            loss = WORSE_SHARE * margin / 100
            crossed = crossings(runs, seed, flips, loss, loss)
            rows.append(share_row("rejected", margin, -100 * loss, flips, crossed))
    return rows


def crossings(
    runs: int, seed: int, flips: float, difference: float, mean_max: float, evidence: Evidence = log_evidence
) -> Floats:
    """Return the item at which each of `runs` simulated tests crossed; infinite where none did by ITEMS_MAX."""
    found = []
    rng = np.random.default_rng(seed)
    # A thousand runs of ten thousand items at 20 % flips are 30 MB of counts.
    for start in range(0, runs, 1000):
        moments = gains if mean_max > 0 else peaks
        counts, exists = moments(rng, runs=min(1000, runs - start), items=ITEMS_MAX, flips=flips, difference=difference)
        found.append(first_crossings(counts, exists, mean_max=mean_max, threshold=THRESHOLD, evidence=evidence))
    return np.concatenate(found)


def share_row(verdict: str, margin: float, truth: float, flips: float, crossed: Floats) -> dict[str, Any]:
    runs, share = len(crossed), float(np.isfinite(crossed).mean())
    return {
        "falsely": verdict,
        "margin_points": margin,
        "true_difference_points": truth,
        "flips_share": flips,
        "share": share,
        "upper_99": share + 2.576 * math.sqrt(share * (1 - share) / runs),
        "n_runs": runs,
    }


def power(runs: int, seed: int) -> list[dict[str, Any]]:
    """Items until acceptance, against the fixed number that a textbook test needs for the same error and power."""
    rows = []
    normal = NormalDist()
    z = normal.inv_cdf(1 - ALPHA) + normal.inv_cdf(POWER)
    for margin, flips, difference in [
        (margin, flips, difference) for margin in MARGINS for flips in (0.01, 0.06, 0.10) for difference in (0.0, -0.5)
    ]:
        truth = difference / 100
        fixed = z * z * (flips - truth * truth) / (truth + margin / 100) ** 2
        crossed = crossings(runs, seed, flips, truth, -margin / 100)
        plain = crossings(runs, seed, flips, truth, -margin / 100, six_shares)
        rows.append(
            {
                "margin_points": margin,
                "flips_share": flips,
                "true_difference_points": difference,
                "fixed_items_for_power_80": math.ceil(fixed),
                "items_for_power_80": whole(float(np.quantile(crossed, POWER, method="higher"))),
                "items_median": whole(float(np.median(crossed))),
                "items_median_six_equal_shares": whole(float(np.median(plain))),
                "accepted_within_fixed_items": float((crossed <= fixed).mean()),
                "accepted_within_max": float(np.isfinite(crossed).mean()),
                "n_runs": runs,
            }
        )
    return rows


def whole(items: float) -> int | None:
    return int(items) if math.isfinite(items) else None


# --- verdicts on flips of real models ----------------------------------------------------------


def published_pairs(folder: Path) -> dict[str, list[int]]:
    """Return x of every item for each (model, precision) of the folder."""
    results = folder / "results"
    items = json.loads((results / "_bench_items.json").read_text())
    answers: dict[tuple[str, str, str], list[str]] = {}
    for file in sorted(results.glob("*__*__*.json")):
        row = json.loads(file.read_text())
        answers[row["model"], row["precision"], row["benchmark"]] = row["preds"]
    pairs: dict[str, list[int]] = {}
    for (model, precision, benchmark), given in sorted(answers.items()):
        if precision == "fp16":
            continue
        reference = answers[model, "fp16", benchmark]
        right = [each["answer"] for each in items[benchmark]]
        marks = pairs.setdefault(f"{model} {precision}", [])
        marks += [(q == a) - (f == a) for q, f, a in zip(given, reference, right, strict=True)]
    return pairs


def generated_pairs(seed: int, count: int = 2961) -> dict[str, list[int]]:
    """Return made-up x at flips and differences like those of real models."""
    rng = random.Random(seed)
    pairs = {}
    for name, flips, difference in (
        ("generated int8, lossless", 0.03, 0.005),
        ("generated int8", 0.05, -0.006),
        ("generated int4, near", 0.09, -0.010),
        ("generated int4, far", 0.10, -0.034),
    ):
        better = (flips + difference) / 2
        pairs[name] = [1 if (u := rng.random()) < better else -1 if u < flips else 0 for _ in range(count)]
    return pairs


def verdicts(pairs: dict[str, list[int]], shuffles: int, seed: int) -> list[dict[str, Any]]:
    """Run the test on each pair in many orders; the share of orders for each verdict."""
    rows = []
    for name, marks in pairs.items():
        for margin in MARGINS:
            found = [decide(marks, margin, seed + index) for index in range(shuffles)]
            counts = {verdict.value: sum(each[0] is verdict for each in found) for verdict in Verdict}
            decided = [items for verdict, items in found if verdict is not Verdict.UNDECIDED]
            rows.append(
                {
                    "pair": name,
                    "margin_points": margin,
                    "difference_points": round(100 * sum(marks) / len(marks), 3),
                    "flips_share": round(sum(map(abs, marks)) / len(marks), 4),
                    **{f"{verdict}_share": count / shuffles for verdict, count in counts.items()},
                    "log10_evidence_within_at_the_end": evidence_at_the_end(marks, -margin / 100),
                    "log10_evidence_worse_at_the_end": evidence_at_the_end(
                        [-x for x in marks], WORSE_SHARE * margin / 100
                    ),
                    "decided_in_every_order_tried": len(decided) == shuffles,
                    # Counts do not know their order: what is shown at the end is shown by then in every one.
                    "decided_in_every_order": max(
                        evidence_at_the_end(marks, -margin / 100),
                        evidence_at_the_end([-x for x in marks], WORSE_SHARE * margin / 100),
                    )
                    >= math.log10(1 / ALPHA),
                    "items_median_where_decided": median(decided) if decided else None,
                    "n_items": len(marks),
                    "n_orders": shuffles,
                }
            )
    return rows


def evidence_at_the_end(marks: Sequence[int], mean_max: float) -> float:
    counts = np.array([sum(x == value for x in marks) for value in (-1, 0, 1)], dtype=np.float64)
    return round(float(log_evidence(counts, mean_max)) / math.log(10), 3)


def decide(marks: Sequence[int], margin: float, seed: int) -> tuple[Verdict, int]:
    """Return the verdict and its item, in the order that `seed` gives."""
    order = list(marks)
    random.Random(seed).shuffle(order)
    x = np.array(order)
    counts = np.stack([(x == value).cumsum() for value in (-1, 0, 1)], axis=-1).astype(np.float64)
    accepted = first(log_evidence(counts, -margin / 100) >= THRESHOLD)
    rejected = first(log_evidence(counts[:, ::-1], WORSE_SHARE * margin / 100) >= THRESHOLD)
    if accepted is None and rejected is None:
        return Verdict.UNDECIDED, len(order)
    if rejected is None or (accepted is not None and accepted <= rejected):
        return Verdict.ACCEPTED, (accepted or 0) + 1
    return Verdict.REJECTED, rejected + 1


def first(crossed: Any) -> int | None:  # noqa: ANN401 -- an array of booleans
    return int(crossed.argmax()) if crossed.any() else None


def agrees_with_the_test(pairs: dict[str, list[int]], seed: int) -> bool:
    """Say whether the vectorized verdicts above are those of `SequentialTest`, one order of each pair."""
    for marks in pairs.values():
        order = list(marks)
        random.Random(seed).shuffle(order)
        test = SequentialTest(MARGINS)
        for x in order:
            test.push(x)
        for each in test.decisions():
            if decide(marks, each.margin_points, seed) != (each.verdict, each.items):
                return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--shuffles", type=int, default=200)
    parser.add_argument("--seed", type=int, default=20261121)
    args = parser.parse_args()
    started = time.monotonic()
    pairs = published_pairs(args.data) if args.data else generated_pairs(args.seed)
    false, decided = false_verdicts(args.runs, args.seed), verdicts(pairs, args.shuffles, args.seed)
    report = {
        "machine": machine(),
        "alpha": ALPHA,
        "items_max": ITEMS_MAX,
        "looked_at": "after every item",
        "false_verdicts": false,
        "false_verdicts_highest": max(row["share"] for row in false),
        "power": power(max(1000, args.runs // 10), args.seed),
        "pairs_from": "published flips of real models" if args.data else "generated",
        "pairs": decided,
        "decided_in_every_order_at_3_points": sum(
            row["decided_in_every_order"] for row in decided if row["margin_points"] == 3.0
        ),
        "pairs_at_3_points": len(pairs),
        "vectorized_agrees_with_the_test": agrees_with_the_test(pairs, args.seed),
    }
    report["seconds"] = round(time.monotonic() - started, 1)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
