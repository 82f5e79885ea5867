"""The gate itself: a variant against its reference on evaluation items, until every tier has its verdict."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import GateError
from pipeline.domain.tiers import ACCURACY_MARGIN_POINTS, Tier
from pipeline.ports.engine import Engine, EngineResult
from workers.engine.answers import utc_now
from workers.gate.contest import Pace, answer_of, contest
from workers.gate.divergence import Divergence
from workers.gate.evidence import Tally, difference_bounds
from workers.gate.identity import Identity, comparison_key
from workers.gate.items import EvaluationSet, Item
from workers.gate.lengths import LengthDrift, length_drift
from workers.gate.logits import SEQUENCES_MAX, LogitsReader, divergence, sequences_of
from workers.gate.outcomes import Outcome
from workers.gate.paired import Pairs, fixed_size_interval, mcnemar, pairs_of
from workers.gate.slices import Slice, slices_of
from workers.gate.trial import ALPHA, Comparison, Decision, SequentialTest, Verdict

if TYPE_CHECKING:  # as in `contest`
    from workers.gate.answer_reader import AnswerReader

#: Items from one point of the path to the next grow by this share, so that a path has some hundred points at most.
_PATH_GROWTH: Final = 0.02
_OK: Final = 200
_READ: Final = frozenset({Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two models."""

    engine: Engine
    identity: Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Logits:
    """Where the two models show their next-token logits."""

    variant: LogitsReader
    reference: LogitsReader
    #: The reference's folder: its tokenizer cuts prompts and answers into tokens.
    tokenizer_folder: Path
    sequences_max: int = SEQUENCES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the gate looks."""

    #: Bound on the chance to accept a variant at the margin or beyond it, and on that to reject one less than a quarter
    #: of the margin below its reference.
    alpha: float = ALPHA
    #: Of the order in which items are asked.
    seed: int = 1
    #: Items both engines answer between two looks at their outcomes.
    round_items: int = 128
    #: Stop when every margin has its verdict; else all items are asked.
    stops_early: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPoint:
    """What was known after some of the items."""

    items: int
    #: Mean of x as a share, and the interval that holds at every moment with probability 0.95.
    difference: float
    interval: tuple[float, float]
    #: Log evidence for being within each margin, the narrowest first.
    log_within: tuple[float, ...]
    #: Log evidence that rejects at each margin.
    log_against: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TierVerdict:
    """Whether the variant may serve a tier."""

    tier: Tier
    decision: Decision

    @property
    def may_serve(self) -> bool:
        """Say whether it is accepted; where it is not, the reference serves."""
        return self.decision.verdict is Verdict.ACCEPTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Qualification:
    """What the gate found; shares are of 1, differences are variant minus reference."""

    variant: Identity
    reference: Identity
    comparison_key: str
    started_at: datetime
    ended_at: datetime
    evaluation: str
    evaluation_digest: str
    endpoint: Endpoint
    comparison: Comparison
    settings: Settings
    items_available: int
    items_asked: int
    #: Items that the reference could not answer, left out; and that only the variant could not, counted as wrong.
    reference_errors: int
    variant_errors: int
    decisions: tuple[Decision, ...]
    tiers: tuple[TierVerdict, ...]
    tally: Tally
    #: The interval holds at every moment with probability 0.95, however the test stopped.
    difference: float
    interval: tuple[float, float]
    #: None where correctness is not compared.
    pairs: Pairs | None
    #: Newcombe's interval and McNemar's p-value, for a number of items fixed beforehand.
    fixed_interval: tuple[float, float] | None
    mcnemar_p: float | None
    #: Share of compared items with another answer than the reference's.
    disagreement_share: float
    slices: tuple[Slice, ...]
    lengths: LengthDrift | None
    divergence: Divergence | None
    #: Mean and first percentile of the cosine between the two embeddings of a query; None for text.
    cosine_mean: float | None
    cosine_p1: float | None
    path: tuple[PathPoint, ...]
    outcomes: tuple[Outcome, ...]
    pace: Pace
    #: The test's state: `SequentialTest.from_plain` continues it.
    test_state: Mapping[str, Any]

    @property
    def items_compared(self) -> int:
        """Return the items that counted."""
        return self.tally.items


def qualify(  # noqa: PLR0913 -- both sides and how to look, all by name
    *,
    variant: Side,
    reference: Side,
    evaluation: EvaluationSet,
    margins: Mapping[Tier, float] = ACCURACY_MARGIN_POINTS,
    settings: Settings | None = None,
    logits: Logits | None = None,
    reader: AnswerReader | None = None,
    on_outcome: Callable[[Outcome, Tally], None] | None = None,
    now: Callable[[], datetime] = utc_now,
) -> Qualification:
    """Compare the variant with the reference until every margin is decided or the items end.

    Args:
        variant: The model asked about.
        reference: The model it would stand in for.
        evaluation: The items; they are asked in an order of the gate's own, by `settings.seed`.
        margins: Percentage points of accuracy that each tier may lose.
        settings: How to look; None is the default.
        logits: Where to read KL from, for models of text; None leaves it out.
        reader: The reference's, for models of text. With it, items without expected answers are compared by likelihood;
            without it, by agreement.
        on_outcome: Called with each item's outcome and the counts so far, such as to log or to draw a bar.
        now: The time, for the report.

    Raises:
        GateError: An engine does not serve the endpoint, the reference answered nothing, or vocabularies differ.
    """
    settings = settings or Settings()
    started_at = now()
    if reader is not None and evaluation.comparison is Comparison.AGREEMENT and evaluation.endpoint in _READ:
        evaluation = replace(evaluation, comparison=Comparison.LIKELIHOOD)
    shuffled = list(evaluation.items)
    random.Random(settings.seed).shuffle(shuffled)  # noqa: S311 -- an order, not a secret
    test = SequentialTest(tuple(margins.values()), alpha=settings.alpha, comparison=evaluation.comparison)
    run = _Run(test, shuffled, answers_kept=logits.sequences_max if logits else 0, on_outcome=on_outcome)
    match_up = contest(evaluation, variant=variant.engine, reference=reference.engine, reader=reader)
    while run.left and not (settings.stops_early and test.is_decided):
        run.take(match_up.round(run.next_items(settings.round_items)))
    if not test.tally.items:
        raise GateError(f"the reference answered none of the {len(run.outcomes)} items: {run.first_error}")
    found = None
    if logits is not None and evaluation.endpoint is not Endpoint.EMBEDDINGS:
        sequences = sequences_of(logits.tokenizer_folder, evaluation.endpoint, run.answered)
        found = divergence(sequences, variant=logits.variant, reference=logits.reference)
    seen = _Seen(test=test, outcomes=tuple(run.outcomes), path=tuple(run.path), divergence=found, pace=match_up.pace)
    return _qualification(variant, reference, evaluation, settings, margins, seen, (started_at, now()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the rounds left behind."""

    test: SequentialTest
    outcomes: tuple[Outcome, ...]
    path: tuple[PathPoint, ...]
    divergence: Divergence | None
    pace: Pace


def _qualification(
    variant: Side,
    reference: Side,
    evaluation: EvaluationSet,
    settings: Settings,
    margins: Mapping[Tier, float],
    seen: _Seen,
    times: tuple[datetime, datetime],
) -> Qualification:
    test, outcomes = seen.test, seen.outcomes
    decided = {decision.margin_points: decision for decision in test.decisions()}
    pairs = pairs_of(outcomes) if evaluation.comparison is Comparison.CORRECTNESS else None
    cosines = [each.cosine for each in outcomes if each.cosine is not None]
    identities = {"variant": variant.identity, "reference": reference.identity}
    return Qualification(
        **identities,
        comparison_key=comparison_key(**identities, items_digest=evaluation.digest, alpha=settings.alpha),
        started_at=times[0],
        ended_at=times[1],
        evaluation=evaluation.name,
        evaluation_digest=evaluation.digest,
        endpoint=evaluation.endpoint,
        comparison=evaluation.comparison,
        settings=settings,
        items_available=len(evaluation.items),
        items_asked=len(outcomes),
        reference_errors=sum(each.x is None for each in outcomes),
        variant_errors=sum(each.x is not None and each.variant_status != _OK for each in outcomes),
        decisions=test.decisions(),
        tiers=tuple(TierVerdict(tier=tier, decision=decided[margin]) for tier, margin in margins.items()),
        tally=test.tally,
        difference=test.tally.difference,
        interval=difference_bounds(test.tally),
        pairs=pairs,
        fixed_interval=fixed_size_interval(pairs) if pairs else None,
        mcnemar_p=mcnemar(test.tally) if pairs else None,
        disagreement_share=sum(each.x is not None and not each.is_same_answer for each in outcomes) / test.tally.items,
        slices=slices_of(outcomes, is_graded=evaluation.comparison.is_graded),
        lengths=length_drift(outcomes),
        divergence=seen.divergence,
        cosine_mean=float(np.mean(cosines)) if cosines else None,
        cosine_p1=float(np.quantile(cosines, 0.01)) if cosines else None,
        path=seen.path,
        outcomes=outcomes,
        pace=seen.pace,
        test_state=test.as_plain(),
    )


class _Run:
    """What accumulates while rounds go by."""

    def __init__(
        self,
        test: SequentialTest,
        items: list[Item],
        *,
        answers_kept: int,
        on_outcome: Callable[[Outcome, Tally], None] | None,
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.path: list[PathPoint] = []
        #: The first items and the reference's answers to them, for the logits.
        self.answered: list[tuple[Item, str]] = []
        self.first_error = ""
        self._test = test
        self._items = items
        self._asked = 0
        self._answers_kept = answers_kept
        self._on_outcome = on_outcome
        self._point_at = 1

    @property
    def left(self) -> int:
        """Return how many items were not asked yet."""
        return len(self._items) - self._asked

    def next_items(self, count: int) -> list[Item]:
        """Return the next items to ask, `count` at most."""
        items = self._items[self._asked : self._asked + count]
        self._asked += len(items)
        return items

    def take(self, round_: Sequence[tuple[Outcome, EngineResult]]) -> None:
        """Count one round, in the order in which it was asked."""
        first = self._asked - len(round_)
        for item, (outcome, result) in zip(self._items[first : self._asked], round_, strict=True):
            self.outcomes.append(outcome)
            if outcome.x is None:
                self.first_error = self.first_error or str(result.body.get("error", {}).get("message", ""))
            else:
                if len(self.answered) < self._answers_kept and "choices" in result.body:
                    self.answered.append((item, answer_of(result)))
                was_decided = self._test.is_decided
                self._test.push(outcome.x)
                if self._test.tally.items >= self._point_at or was_decided != self._test.is_decided:
                    self._mark()
            if self._on_outcome is not None:
                self._on_outcome(outcome, self._test.tally)
        if self._test.tally.items and (not self.path or self.path[-1].items < self._test.tally.items):
            self._mark()

    def _mark(self) -> None:
        tally = self._test.tally
        self._point_at = max(tally.items + 1, round(tally.items * (1 + _PATH_GROWTH)))
        margins = self._test.margins_points
        self.path.append(
            PathPoint(
                items=tally.items,
                difference=tally.difference,
                interval=difference_bounds(tally),
                log_within=tuple(self._test.log_within(margin) for margin in margins),
                log_against=tuple(self._test.log_against(margin) for margin in margins),
            )
        )
