"""Both models on the same items: answers collected, judged and paired, one round at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import GateError
from pipeline.ports.engine import Engine, EngineRequest, EngineResult
from workers.engine.drive import driven
from workers.gate.expected import Retrieves, plain
from workers.gate.items import EvaluationSet, Item
from workers.gate.outcomes import Outcome
from workers.gate.trial import Comparison

if TYPE_CHECKING:  # torch and transformers are imported by who reads
    from workers.gate.answer_reader import AnswerReader

_OK: Final = 200


class Judge(Protocol):
    """Turns two results for one item into an outcome."""

    def judge(self, item: Item, reference: EngineResult, variant: EngineResult) -> Outcome:
        """Return what came of the item."""


def contest(
    evaluation: EvaluationSet, *, variant: Engine, reference: Engine, reader: AnswerReader | None = None
) -> Contest:
    """Return the contest of two loaded engines on an evaluation set; documents, if any, are embedded first.

    Where likelihood is compared, the reference reads the answers by `reader`.

    Raises:
        GateError: An engine does not serve the endpoint, or cannot embed a document.
    """
    for role, engine in (("reference", reference), ("variant", variant)):
        if evaluation.endpoint not in engine.endpoints:
            raise GateError(f"the {role} {engine.model} does not serve {evaluation.endpoint}, which the items ask")
    judge: Judge = TextJudge()
    if evaluation.comparison is Comparison.LIKELIHOOD:
        assert reader is not None, "likelihood is read"
        judge = LikelihoodJudge(reader, evaluation.endpoint)
    if evaluation.endpoint is Endpoint.EMBEDDINGS:
        judge = RetrievalJudge(
            [each.custom_id for each in evaluation.documents],
            reference=_document_vectors(reference, evaluation),
            variant=_document_vectors(variant, evaluation),
        )
    return Contest(evaluation.endpoint, variant=variant, reference=reference, judge=judge)


@dataclass(slots=True, kw_only=True)
class Pace:
    """Seconds and tokens of both engines on the same items, each alone on the device."""

    reference_seconds: float = 0.0
    variant_seconds: float = 0.0
    reference_tokens: int = 0
    variant_tokens: int = 0
    rounds: int = 0

    def add(
        self, reference: Sequence[EngineResult], variant: Sequence[EngineResult], *, seconds: tuple[float, float]
    ) -> None:
        """Count a round; the first is counted only until there is a second, because engines warm up in it."""
        if self.rounds == 1:
            self.reference_seconds = self.variant_seconds = 0.0
            self.reference_tokens = self.variant_tokens = 0
        self.rounds += 1
        self.reference_seconds += seconds[0]
        self.variant_seconds += seconds[1]
        self.reference_tokens += sum(each.input_tokens + each.output_tokens for each in reference)
        self.variant_tokens += sum(each.input_tokens + each.output_tokens for each in variant)

    @property
    def relative_cost(self) -> float | None:
        """Return device time per token, the variant's relative to the reference's; None before both have one."""
        if not (self.reference_tokens and self.variant_tokens and self.reference_seconds > 0):
            return None
        return (self.variant_seconds / self.variant_tokens) / (self.reference_seconds / self.reference_tokens)


class Contest:
    """Asks both engines and judges."""

    def __init__(self, endpoint: Endpoint, *, variant: Engine, reference: Engine, judge: Judge) -> None:
        """Ask `endpoint` of both."""
        self._endpoint = endpoint
        self._variant = variant
        self._reference = reference
        self._judge = judge
        self.pace = Pace()

    def round(self, items: Sequence[Item]) -> list[tuple[Outcome, EngineResult]]:
        """Return each item's outcome and the reference's result, in the order of `items`.

        The reference goes first and alone, then the variant: side by side they would share the device's memory.
        """
        began_at = time.perf_counter()
        first = answers(self._reference, self._endpoint, items)
        turned_at = time.perf_counter()
        second = answers(self._variant, self._endpoint, items)
        self.pace.add(first, second, seconds=(turned_at - began_at, time.perf_counter() - turned_at))
        return [
            (self._judge.judge(item, reference, variant), reference)
            for item, reference, variant in zip(items, first, second, strict=True)
        ]


def answers(engine: Engine, endpoint: Endpoint, items: Sequence[Item]) -> list[EngineResult]:
    """Return the engine's results for `items`, in their order."""
    requests = (EngineRequest(key, endpoint, {**item.body, "model": engine.model}) for key, item in enumerate(items))
    return sorted(driven(engine, requests), key=lambda result: result.key)


def answer_of(result: EngineResult) -> str:
    """Return the text of a chat or text completion."""
    choice = result.body["choices"][0]
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


class TextJudge:
    """Judges answers in words: by what is expected, or by equality with the reference's."""

    def judge(self, item: Item, reference: EngineResult, variant: EngineResult) -> Outcome:
        """Return what came of the item."""
        assert not isinstance(item.expected, Retrieves)
        read = plain if item.expected is None else item.expected.read
        first = read(answer_of(reference)) if reference.status_code == _OK else None
        second = read(answer_of(variant)) if variant.status_code == _OK else None
        if item.expected is None:
            rights: tuple[bool | None, bool | None] = None, None
        else:
            rights = (
                first is not None and item.expected.is_met(first),
                second is not None and item.expected.is_met(second),
            )
        return _outcome(item, reference, variant, rights=rights, is_same=first is not None and first == second)


class LikelihoodJudge:
    """Judges answers in words by what the reference makes of them."""

    def __init__(self, reader: AnswerReader, endpoint: Endpoint) -> None:
        """Read answers to `endpoint` by the reference's `reader`."""
        self._reader = reader
        self._endpoint = endpoint
        self._by_text = TextJudge()

    def judge(self, item: Item, reference: EngineResult, variant: EngineResult) -> Outcome:
        """Return what came of the item."""
        outcome = self._by_text.judge(item, reference, variant)
        if outcome.x is None:
            return outcome
        if variant.status_code != _OK:
            return replace(outcome, x=-1.0)
        reading = self._reader.read(self._endpoint, item.body, variant.body)
        return replace(outcome, x=None if reading is None else reading.x)


class RetrievalJudge:
    """Judges embeddings by the documents nearest to them, by cosine, each model in its own space."""

    def __init__(
        self, custom_ids: Sequence[str], *, reference: NDArray[np.float32], variant: NDArray[np.float32]
    ) -> None:
        """Search the documents `custom_ids`, whose unit vectors are the rows of the two matrices."""
        self._custom_ids = list(custom_ids)
        self._reference = reference
        self._variant = variant

    def judge(self, item: Item, reference: EngineResult, variant: EngineResult) -> Outcome:
        """Return what came of the item."""
        assert item.expected is None or isinstance(item.expected, Retrieves)
        count = 1 if item.expected is None else item.expected.nearest
        first = self._found(self._reference, reference, count)
        second = self._found(self._variant, variant, count)
        if item.expected is None:
            rights: tuple[bool | None, bool | None] = None, None
        else:
            wanted = set(item.expected.custom_ids)
            rights = bool(wanted & set(first)), bool(wanted & set(second))
        cosine = None
        if first and second and self._reference.shape == self._variant.shape:
            cosine = float(_unit(reference) @ _unit(variant))
        is_same = bool(first) and first[:1] == second[:1]
        return _outcome(item, reference, variant, rights=rights, is_same=is_same, cosine=cosine)

    def _found(self, documents: NDArray[np.float32], result: EngineResult, count: int) -> list[str]:
        if result.status_code != _OK:
            return []
        scores = documents @ _unit(result)
        # Ties to the earlier document, so that equal vectors give equal answers.
        return [self._custom_ids[index] for index in np.argsort(-scores, kind="stable")[:count]]


def _outcome(
    item: Item,
    reference: EngineResult,
    variant: EngineResult,
    *,
    rights: tuple[bool | None, bool | None],
    is_same: bool,
    cosine: float | None = None,
) -> Outcome:
    if reference.status_code != _OK:
        x = None
    elif rights[0] is None:
        x = 0 if is_same else -1
    else:
        x = int(bool(rights[1])) - int(rights[0])
    return Outcome(
        custom_id=item.custom_id,
        slice=item.slice,
        reference_is_right=rights[0],
        variant_is_right=rights[1],
        is_same_answer=is_same,
        x=x,
        reference_tokens=reference.output_tokens,
        variant_tokens=variant.output_tokens,
        reference_status=reference.status_code,
        variant_status=variant.status_code,
        cosine=cosine,
    )


def _document_vectors(engine: Engine, evaluation: EvaluationSet) -> NDArray[np.float32]:
    results = answers(engine, evaluation.endpoint, evaluation.documents)
    for item, result in zip(evaluation.documents, results, strict=True):
        if result.status_code != _OK:
            said: Mapping[str, Any] = result.body.get("error", {})
            raise GateError(f"{engine.model} cannot embed the document {item.custom_id}: {said.get('message', '')}")
    return np.stack([_unit(result) for result in results])


def _unit(result: EngineResult) -> NDArray[np.float32]:
    vector = np.asarray(result.body["data"][0]["embedding"], dtype=np.float32)
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length else vector
