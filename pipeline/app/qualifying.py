"""The gate, asked about a variant of this installation, and its verdicts recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.app.stack import Stack
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import UsageError
from pipeline.domain.gates import GateVerdict
from pipeline.domain.models import EngineKind, ModelSpec
from pipeline.ports.variants import Qualification

#: What there are items for, the first that a model serves.
_BUILT_IN: Final = (Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS)

if TYPE_CHECKING:  # numpy and the engines are imported by who asks
    from workers.gate.evidence import Tally
    from workers.gate.items import EvaluationSet
    from workers.gate.outcomes import Outcome
    from workers.gate.qualification import Qualification as Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of the gate."""

    variant: ModelSpec
    reference: ModelSpec
    #: Evaluation items; None takes the built-in ones.
    data: Path | None
    #: Where the report goes: report.json, report.html, outcomes.jsonl.
    folder: Path
    seed: int = 1
    #: Ask no more than this many; None: as many as there are.
    items_max: int | None = None
    #: Whether next-token distributions are compared too; it takes a second load of both.
    has_logits: bool = True


def evaluation_of(question: Question) -> EvaluationSet:
    """Return the items of the question; raises `EvaluationFileError`."""
    from workers.gate.builtin import set_for
    from workers.gate.items import read_file

    if question.data is not None:
        return _first(read_file(question.data), question.items_max)
    if question.variant.engine is EngineKind.VISION:
        raise UsageError(f"there are no built-in images to compare {question.variant.variant} on", hint="--data FILE")
    endpoint = next((each for each in _BUILT_IN if each in question.variant.endpoints), None)
    if endpoint is None:
        raise UsageError(f"there are no built-in items for {question.variant.variant}", hint="--data FILE")
    return _first(set_for(endpoint), question.items_max)


def _first(evaluation: EvaluationSet, count: int | None) -> EvaluationSet:
    return evaluation if count is None else replace(evaluation, items=evaluation.items[:count])


def qualify_variant(
    stack: Stack, question: Question, *, on_outcome: Callable[[Outcome, Tally], None] | None = None
) -> Found:
    """Compare the variant with its reference, write the report, and record a verdict for each tier.

    Raises:
        UsageError: The two are not variants of one model, or the items are no items.
        ModelUnavailableError: One of them cannot be loaded here.
        GateError: They cannot be compared.
    """
    from contextlib import ExitStack

    from workers.gate.identity import served_key
    from workers.gate.page import write_page
    from workers.gate.qualification import Settings as GateSettings
    from workers.gate.qualification import qualify
    from workers.gate.report import write_outcomes, write_report
    from workers.gate.sides import Bench, open_answer_reader, open_logits, open_side
    from workers.gate.trial import Comparison

    _check(question)
    evaluation = evaluation_of(question)
    settings = stack.settings
    bench = Bench(cache_dir=settings.home_folder / "models", device=settings.device, threads=settings.engine_threads)
    question.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as resources:
        found = qualify(
            variant=resources.enter_context(open_side(question.variant, bench)),
            reference=resources.enter_context(open_side(question.reference, bench)),
            evaluation=evaluation,
            settings=GateSettings(seed=question.seed),
            logits=resources.enter_context(open_logits(question.variant, question.reference, bench))
            if question.has_logits and evaluation.endpoint is not Endpoint.EMBEDDINGS
            else None,
            reader=resources.enter_context(open_answer_reader(question.reference, bench))
            if evaluation.comparison is Comparison.AGREEMENT and evaluation.endpoint is not Endpoint.EMBEDDINGS
            else None,
            on_outcome=on_outcome,
        )
    write_report(found, question.folder / "report.json")
    write_page(found, question.folder / "report.html")
    write_outcomes(found, question.folder / "outcomes.jsonl")
    stack.registry.qualify(_recorded(question, found, served_key(question.variant, settings.device)))
    return found


def _check(question: Question) -> None:
    if question.variant.is_reference:
        raise UsageError(f"{question.variant.variant} is a reference: others are measured against it")
    if question.variant.name != question.reference.name:
        raise UsageError(
            f"{question.variant.variant} is no variant of {question.reference.name}",
            hint=f"--against {question.variant.name}",
        )


def _recorded(question: Question, found: Found, key: str) -> list[Qualification]:
    summary = {
        "comparison_key": found.comparison_key,
        "evaluation": found.evaluation,
        "evaluation_digest": found.evaluation_digest,
        "comparison": found.comparison.value,
        "items": found.items_compared,
        "difference": found.difference,
        "interval": list(found.interval),
        "disagreement_share": found.disagreement_share,
        "reference_key": found.reference.as_plain(),
        "report": str(question.folder.resolve()),
        "test_state": dict(found.test_state),
    }
    return [
        Qualification(
            variant=question.variant.variant,
            tier=each.tier,
            verdict=GateVerdict(each.decision.verdict),
            gate_key=key,
            reference=question.reference.variant,
            relative_cost=found.pace.relative_cost,
            reason=f"{each.decision.items:,} items at {each.decision.margin_points:g} points: "
            f"{each.decision.reason.sentence}",
            report=summary,
        )
        for each in found.tiers
    ]
