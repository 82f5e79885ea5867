"""Predictions: all that was learned, and what it says of rows that have not run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self

import numpy as np

from pipeline.domain.shares import UnitCosts
from pipeline.domain.sketches import LengthSketch
from pipeline.ports.cycle import EndedPack, Learned, LearnedKind, WorkSize
from scheduler.columns import Floats, Integers, Sizes
from scheduler.prediction.pace import Pace
from scheduler.prediction.tokens import TokenRates

#: The template of a model's rows taken all together.
_ALL: Final = ""
_UNKNOWN: Final = TokenRates()
_UNMEASURED: Final = Pace()


class Predictions:
    """What is known of each variant's pace and of each template's tokens; the leader keeps one through its term."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._paces: dict[tuple[str, str], Pace] = {}
        self._tokens: dict[tuple[str, str], TokenRates] = {}
        #: Of each model, those of which rows have run.
        self._templates: dict[str, list[int]] = {}
        self._changed: set[tuple[LearnedKind, str, str]] = set()
        #: Actual over estimated input and output tokens by model and template, until something is learned of the model.
        self._ratios: dict[str, dict[int, tuple[float, float]]] = {}

    @classmethod
    def recalled(cls, learned: Iterable[Learned]) -> Self:
        """Return what was known when these were stored."""
        known = cls()
        for entry in learned:
            match entry.kind:
                case LearnedKind.PACE:
                    known._paces[entry.subject, entry.detail] = Pace.from_plain(entry.state)
                case LearnedKind.TOKENS:
                    known._know(entry.subject, entry.detail, TokenRates.from_plain(entry.state))
        return known

    def frozen(self) -> Predictions:
        """Return predictions that know what these do and learn nothing."""
        return _FrozenPredictions(self)

    def learn(self, pack: EndedPack) -> None:
        """Take in a pack that ended."""
        done = [share for share in pack.shares if share.actual.rows > 0]
        # Before anything is learned from it: as a pack to come would be predicted.
        expected = _sum(self.size(share.estimated, model=pack.model, template=share.template) for share in done)
        for share in done:
            lengths = LengthSketch.from_plain(share.lengths)
            for detail in (_ALL, str(share.template)):
                self._rates(pack.model, detail).learn(share.estimated, share.actual, lengths)
                self._changed.add((LearnedKind.TOKENS, pack.model, detail))
        self._ratios.pop(pack.model, None)
        if pack.is_clean and done and pack.seconds > 0:
            pace = self._paces.setdefault((pack.variant, pack.pool), Pace())
            pace.learn(_sum(share.actual for share in done), pack.seconds, expected=expected)
            self._changed.add((LearnedKind.PACE, pack.variant, pack.pool))

    def changed(self) -> tuple[Learned, ...]:
        """Return what is not stored yet."""
        return tuple(self._told(*key) for key in sorted(self._changed))

    def stored(self) -> None:
        """Note that what `changed` told is stored."""
        self._changed.clear()

    def is_measured(self, variant: str, pool: str) -> bool:
        """Say whether any pack of the variant has run in the pool."""
        return (variant, pool) in self._paces

    def packs_known(self, variant: str, pool: str) -> float:
        """Return how many packs of the variant have run in the pool, older ones as the fraction they count for."""
        return self._pace(variant, pool).weight

    def size(self, estimated: WorkSize, *, model: str, template: int) -> WorkSize:
        """Return how much work rows are expected to be that intake estimated so."""
        input_ratio, output_ratio = self._ratios_of(model, template)
        return WorkSize(
            rows=estimated.rows,
            input_tokens=estimated.input_tokens * input_ratio,
            output_tokens=estimated.output_tokens * output_ratio,
        )

    def seconds(self, size: WorkSize, *, variant: str, pool: str, tokens_per_second: float) -> float:
        """Return the worker-seconds of so much work; `tokens_per_second` is assumed while nothing is known."""
        return self._pace(variant, pool).seconds(size, tokens_per_second=tokens_per_second)

    def sizes(self, estimated: Sizes, *, model: str, templates: Integers) -> Sizes:
        """Return the same as `size` for each of many, whose templates are `templates`."""
        kinds, kind_of_each = np.unique(templates, return_inverse=True)
        ratios = np.tile(self._ratios_of_all(model), (len(kinds), 1))
        # Very many templates may be new, and of those all that is known is what holds for the model.
        for place in np.flatnonzero(np.isin(kinds, self._templates.get(model, ()))).tolist():
            ratios[place] = self._ratios_of(model, int(kinds[place]))
        inputs, outputs = ratios[kind_of_each].T
        return Sizes(estimated.rows, estimated.input_tokens * inputs, estimated.output_tokens * outputs)

    def seconds_of_each(self, sizes: Sizes, *, variant: str, pool: str, tokens_per_second: float) -> Floats:
        """Return the same as `seconds` for many."""
        return self._pace(variant, pool).seconds_of_each(sizes, tokens_per_second=tokens_per_second)

    def unit_costs(self, *, variant: str, pool: str, tokens_per_second: float) -> UnitCosts:
        """Return what the predicted seconds are made of."""
        return self._pace(variant, pool).unit_costs(tokens_per_second=tokens_per_second)

    def upper_factors(self, *, variant: str, pool: str, packs: Floats, assumed: float) -> Floats:
        """Return what to multiply predicted seconds by for a bound; see `Pace.upper_factors`."""
        return self._pace(variant, pool).upper_factors(packs, assumed=assumed)

    def fixed_seconds(self, *, variant: str, pool: str, assumed: float) -> float:
        """Return a bound of what a pack takes beyond its rows; `assumed` as long as packs do not tell."""
        return self._pace(variant, pool).fixed.upper(assumed)

    def lengths(self, model: str, template: int) -> LengthSketch:
        """Return how long answers were: the template's where there are some, else the model's, else an empty sketch."""
        own = self._tokens.get((model, str(template)))
        found = own if own is not None and own.rows > 0 else self._tokens.get((model, _ALL), _UNKNOWN)
        return found.lengths

    def rows_known(self, model: str, template: int) -> float:
        """Return how many rows of the template have run, older ones as the fraction they count for."""
        return self._tokens.get((model, str(template)), _UNKNOWN).rows

    def ratios(self, variant: str, pool: str) -> tuple[float, ...]:
        """Return actual over predicted seconds of the last packs."""
        return tuple(self._pace(variant, pool).ratios)

    def _ratios_of(self, model: str, template: int) -> tuple[float, float]:
        known = self._ratios.setdefault(model, {})
        found = known.get(template)
        if found is None:
            inputs, outputs = self._ratios_of_all(model)
            own = self._tokens.get((model, str(template)), _UNKNOWN)
            found = known[template] = own.input_ratio(inputs), own.output_ratio(outputs)
        return found

    def _ratios_of_all(self, model: str) -> tuple[float, float]:
        whole = self._tokens.get((model, _ALL), _UNKNOWN)
        return whole.input_ratio(), whole.output_ratio()

    def _pace(self, variant: str, pool: str) -> Pace:
        return self._paces.get((variant, pool), _UNMEASURED)

    def _rates(self, model: str, detail: str) -> TokenRates:
        if (model, detail) not in self._tokens:
            self._know(model, detail, TokenRates())
        return self._tokens[model, detail]

    def _know(self, model: str, detail: str, rates: TokenRates) -> None:
        self._tokens[model, detail] = rates
        if detail != _ALL:
            self._templates.setdefault(model, []).append(int(detail))

    def _told(self, kind: LearnedKind, subject: str, detail: str) -> Learned:
        source = self._paces if kind is LearnedKind.PACE else self._tokens
        return Learned(kind=kind, subject=subject, detail=detail, state=source[subject, detail].as_plain())


class _FrozenPredictions(Predictions):
    def __init__(self, known: Predictions) -> None:
        super().__init__()
        vars(self).update(vars(known))

    def learn(self, pack: EndedPack) -> None:
        """Learn nothing."""


def _sum(sizes: Iterable[WorkSize]) -> WorkSize:
    rows = inputs = outputs = 0.0
    for size in sizes:
        rows, inputs, outputs = rows + size.rows, inputs + size.input_tokens, outputs + size.output_tokens
    return WorkSize(rows=rows, input_tokens=inputs, output_tokens=outputs)
