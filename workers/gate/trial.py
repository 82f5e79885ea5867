"""The sequential test: fed item by item, it says when a variant is shown good enough, or shown worse.

    accept   when the evidence that the mean is above -margin reaches 1/alpha        (`Reason.WITHIN_MARGIN`)
    reject   when the evidence that the mean is below -margin/4 reaches 1/alpha      (`Reason.WORSE`)

Each is wrong with probability alpha at most, at whatever item it comes: a variant whose accuracy is `margin` below
the reference's, or further, is accepted with probability alpha at most; one less than a quarter of the margin below
it is rejected with probability alpha at most. A variant in between satisfies neither hypothesis and either answer is
true of it; the evidence that grows faster comes first, which is acceptance for one nearer to a quarter than to the
whole. Where nothing is shown when the items end the verdict is `undecided`, and the reference stays.

Why a quarter. Rejecting whatever is worse by anything decides sooner, and rejects by the luck of the order variants
that are well inside the margin: on published flips up to one order in six, against one in twenty with the quarter.
With a third, one pair of those stayed open at 3 points in some orders. So the share was chosen with them in view.

The guarantee wants items that are an independent sample of what the variant will serve. A file sorted by subject is
none in that order, so the gate shuffles it, by a seed that the report names.

Comparing agreement. Without expected answers, x is 0 where the two answers are the same and -1 where they differ.
However an answer may be judged, if equal answers are judged equal, then accuracy falls by the share of different
answers at most; so acceptance shows all that it shows with expected answers. Rejection cannot: a different answer is
not a worse one. There a variant is rejected only when the share that differs is shown to be above the margin
(`Reason.DIFFERS`), which says that nothing can be concluded without expected answers.

Comparing likelihood. Where the reference can read the variant's answer, x is how much less likely it found it than its
own choice (`workers.gate.deficit`): a number from -1 to 0. That is a loss by itself and not a bound on one, so a
variant is accepted where the mean loss is shown below the margin and rejected where it is shown above (`Reason.BEYOND`).
There is no quarter here, since every variant but the reference loses something. Evidence is kept as capitals
(`pipeline.domain.wealth`), because counts would waste what x says.

After acceptance. In production a rollback wants the evidence that the mean is below -margin
(`SequentialTest.log_beyond`): evidence of being worse by a quarter comes in time for many that are within the margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from pipeline.domain.wealth import Wealth
from workers.gate.evidence import Tally, above, below

ALPHA: Final = 0.05
#: A loss that is shown to be larger than this share of the margin rejects.
WORSE_SHARE: Final = 0.25
_POINTS: Final = 100.0
#: A graded x is never above what the reference chose itself.
_GRADED: Final = (-1.0, 0.0)


class Comparison(StrEnum):
    """What x compares."""

    #: Correct on the variant minus correct on the reference.
    CORRECTNESS = "correctness"
    #: 0 where the variant gives the reference's answer, else -1.
    AGREEMENT = "agreement"
    #: How much less likely the reference finds the answer than its own choice, from -1 to 0.
    LIKELIHOOD = "likelihood"

    @property
    def is_graded(self) -> bool:
        """Say whether x may be anything between its bounds."""
        return self is Comparison.LIKELIHOOD


class Verdict(StrEnum):
    """What is known of a variant at a margin."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNDECIDED = "undecided"


class Reason(StrEnum):
    """Why the verdict is what it is."""

    WITHIN_MARGIN = "within_margin"
    WORSE = "worse"
    DIFFERS = "differs"
    BEYOND = "beyond_margin"
    TOO_FEW_ITEMS = "too_few_items"

    @property
    def sentence(self) -> str:
        """Return the reason for people."""
        return _SENTENCES[self]


_SENTENCES: Final = {
    Reason.WITHIN_MARGIN: "It is shown to be less than the margin below the reference.",
    Reason.WORSE: "It is shown to be worse than the reference by more than a quarter of the margin, and not shown to be within it.",
    Reason.DIFFERS: "It answers differently on more items than the margin allows; whether worse, expected answers must tell.",
    Reason.BEYOND: "The reference is shown to find its answers less likely than its own by more than the margin.",
    Reason.TOO_FEW_ITEMS: "The items ended before either was shown; the reference stays.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The verdict at one margin."""

    margin_points: float
    verdict: Verdict
    reason: Reason
    #: Items seen when it was decided; all of them where it is undecided.
    items: int
    #: The evidence that decided, as a natural logarithm; the larger of the two where it is undecided.
    log_evidence: float


class SequentialTest:
    """One stream of items tested at several margins; its state is plain data and can be continued elsewhere."""

    def __init__(
        self,
        margins_points: Sequence[float],
        *,
        alpha: float = ALPHA,
        comparison: Comparison = Comparison.CORRECTNESS,
    ) -> None:
        """Test at each of `margins_points`, in percentage points, wrong with probability `alpha` at most.

        Raises:
            ValueError: A margin is not above 0 and below 100, or `alpha` not above 0 and below 1.
        """
        if not margins_points or not all(0 < margin < _POINTS for margin in margins_points):
            raise ValueError(f"margins are above 0 and below 100 points, and at least one is given: {margins_points}")
        if not 0 < alpha < 1:
            raise ValueError(f"alpha is above 0 and below 1, not {alpha}")
        self.alpha = alpha
        self.comparison = comparison
        self.margins_points = tuple(sorted(set(margins_points)))
        self.tally = Tally()
        self._decisions: dict[float, Decision] = {}
        #: Of a graded x alone: at each margin, what those own who doubt that the loss is above it, and below it.
        self._wealth = {margin: (Wealth(), Wealth()) for margin in self.margins_points if comparison.is_graded}

    @property
    def threshold(self) -> float:
        """Return the log evidence that decides."""
        return math.log(1 / self.alpha)

    @property
    def is_decided(self) -> bool:
        """Say whether every margin has its verdict."""
        return len(self._decisions) == len(self.margins_points)

    def push(self, x: float) -> None:
        """Count one item: -1 worse, 0 the same, 1 better; from -1 to 0 where likelihood is compared. Verdicts reached stay.

        Raises:
            ValueError: `x` is something else, or above 0 where agreement or likelihood is compared.
        """
        if self.comparison is not Comparison.CORRECTNESS and x > 0:
            raise ValueError("no answer agrees with the reference more than its own")
        if self.comparison.is_graded:
            self.tally = self.tally.plus_part(x)
            for margin, (within, beyond) in self._wealth.items():
                mean = -margin / _POINTS
                self._wealth[margin] = (
                    within.doubting_at_most(mean, x, _GRADED),
                    beyond.doubting_at_least(mean, x, _GRADED),
                )
        else:
            self.tally = self.tally.plus(x)
        for margin in self.margins_points:
            if margin not in self._decisions and (decision := self._decided(margin)) is not None:
                self._decisions[margin] = decision

    def decisions(self) -> tuple[Decision, ...]:
        """Return the verdict at each margin, the narrowest first."""
        return tuple(self._decisions.get(margin) or self._undecided(margin) for margin in self.margins_points)

    def log_within(self, margin_points: float) -> float:
        """Return the log evidence that the variant is less than the margin below the reference."""
        if self.comparison.is_graded:
            return self._wealth[margin_points][0].log_evidence
        return above(self.tally, -margin_points / _POINTS)

    def log_worse(self, margin_points: float) -> float:
        """Return the log evidence that the variant is worse by more than a quarter of the margin."""
        return below(self.tally, -WORSE_SHARE * margin_points / _POINTS)

    def log_against(self, margin_points: float) -> float:
        """Return the log evidence that rejects: of being worse, of differing, or of being beyond the margin."""
        return self._against(margin_points)[1]

    def log_beyond(self, margin_points: float) -> float:
        """Return the log evidence that the variant is more than the margin below the reference."""
        if self.comparison.is_graded:
            return self._wealth[margin_points][1].log_evidence
        return below(self.tally, -margin_points / _POINTS)

    def as_plain(self) -> dict[str, Any]:
        """Return the state as JSON would hold it."""
        return {
            "alpha": self.alpha,
            "comparison": self.comparison.value,
            "margins_points": list(self.margins_points),
            "tally": self.tally.as_plain(),
            "wealth": [[side.as_plain() for side in self._wealth[margin]] for margin in self._wealth],
            "decisions": [
                {
                    "margin_points": each.margin_points,
                    "verdict": each.verdict.value,
                    "reason": each.reason.value,
                    "items": each.items,
                    "log_evidence": each.log_evidence,
                }
                for each in self._decisions.values()
            ],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Return the test that `as_plain` wrote, to be continued."""
        test = cls(plain["margins_points"], alpha=plain["alpha"], comparison=Comparison(plain["comparison"]))
        test.tally = Tally.from_plain(plain["tally"])
        for margin, (within, beyond) in zip(test._wealth, plain.get("wealth", ()), strict=True):
            test._wealth[margin] = (Wealth.from_plain(within), Wealth.from_plain(beyond))
        for each in plain["decisions"]:
            named = {**each, "verdict": Verdict(each["verdict"]), "reason": Reason(each["reason"])}
            test._decisions[each["margin_points"]] = Decision(**named)
        return test

    def _decided(self, margin: float) -> Decision | None:
        evidence = self.log_within(margin)
        if evidence >= self.threshold:
            return self._decision(margin, Verdict.ACCEPTED, Reason.WITHIN_MARGIN, evidence)
        reason, evidence = self._against(margin)
        if evidence >= self.threshold:
            return self._decision(margin, Verdict.REJECTED, reason, evidence)
        return None

    def _undecided(self, margin: float) -> Decision:
        evidence = max(self.log_within(margin), self._against(margin)[1])
        return self._decision(margin, Verdict.UNDECIDED, Reason.TOO_FEW_ITEMS, evidence)

    def _against(self, margin: float) -> tuple[Reason, float]:
        if self.comparison is Comparison.AGREEMENT:
            return Reason.DIFFERS, self.log_beyond(margin)
        if self.comparison is Comparison.LIKELIHOOD:
            return Reason.BEYOND, self.log_beyond(margin)
        return Reason.WORSE, self.log_worse(margin)

    def _decision(self, margin: float, verdict: Verdict, reason: Reason, evidence: float) -> Decision:
        return Decision(
            margin_points=margin, verdict=verdict, reason=reason, items=self.tally.items, log_evidence=evidence
        )
