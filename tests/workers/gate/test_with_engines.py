"""The gate with real engines and real logits, on models small enough to make here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from pipeline.domain.errors import GateError, ModelUnavailableError
from pipeline.domain.models import EngineKind, ModelSpec, Recipe
from pipeline.domain.tiers import Tier
from tests.workers.engine.driving import needs_openvino
from tests.workers.letters import letters_folder
from workers.engine.models import content_hash
from workers.engine.openvino_chat.export import export
from workers.engine.registry import load_engine
from workers.gate.answer_reader import AnswerReader
from workers.gate.divergence import Divergence
from workers.gate.identity import Identity, engine_version, numerics
from workers.gate.items import EvaluationSet, read_lines
from workers.gate.logits import TokenSequence, divergence, open_reader
from workers.gate.page import page_of
from workers.gate.qualification import Logits, Settings, Side, qualify
from workers.gate.report import report_of
from workers.gate.trial import Comparison, Reason, SequentialTest, Verdict

Folders = Callable[[float], Path]

TOKENS = tuple(range(40, 90))


def loaded(folder: Path, cache_dir: Path) -> Side:
    spec = ModelSpec(name="tiny", source=str(folder), engine=EngineKind.TORCH, recipe=Recipe.FLOAT32)
    identity = Identity(
        model="tiny", revision=content_hash(folder), engine="torch",
        engine_version=engine_version(EngineKind.TORCH), numerics=numerics("cpu"),
    )  # fmt: skip
    return Side(engine=load_engine(spec, cache_dir=cache_dir, device="cpu"), identity=identity)


def evaluation(count: int) -> EvaluationSet:
    rows = [
        {"custom_id": f"{i}", "url": "/v1/completions", "body": {"prompt": f"item {i * 37 % 101}", "max_tokens": 4}}
        for i in range(count)
    ]
    return read_lines([json.dumps(row).encode() for row in rows], name="prompts")


def test_coarser_weights_change_answers_and_distributions(tiny_folders: Folders, tmp_path: Path) -> None:
    folder, coarse = tiny_folders(0.0), tiny_folders(0.2)
    logits = Logits(
        variant=open_reader(coarse, device="cpu"),
        reference=open_reader(folder, device="cpu"),
        tokenizer_folder=folder,
        sequences_max=12,
    )
    found = qualify(
        variant=loaded(coarse, tmp_path),
        reference=loaded(folder, tmp_path),
        evaluation=evaluation(60),
        logits=logits,
        settings=Settings(round_items=30),
    )

    assert found.comparison is Comparison.AGREEMENT
    assert 0 < found.disagreement_share < 1
    assert found.divergence is not None
    assert found.divergence.sequences <= 12
    assert found.divergence.mean_nats > 0.01
    assert found.variant.revision != found.reference.revision
    assert found.lengths is not None


def test_a_model_agrees_with_itself(tiny_folders: Folders, tmp_path: Path) -> None:
    folder = tiny_folders(0.0)
    reader = open_reader(folder, device="cpu")
    found = qualify(
        variant=loaded(folder, tmp_path),
        reference=loaded(folder, tmp_path),
        evaluation=evaluation(40),
        logits=Logits(variant=reader, reference=reader, tokenizer_folder=folder),
    )

    assert found.disagreement_share == 0
    assert found.divergence is not None
    assert found.divergence.max_nats == 0
    assert found.divergence.same_top_share == 1


@pytest.mark.parametrize(
    ("noise", "verdict", "reason"),
    [(0.002, Verdict.ACCEPTED, Reason.WITHIN_MARGIN), (0.2, Verdict.REJECTED, Reason.BEYOND)],
    ids=["healthy", "broken"],
)
def test_without_expected_answers_the_reference_reads_the_variants(
    tmp_path: Path, noise: float, verdict: Verdict, reason: Reason
) -> None:
    folder, other = letters_folder(tmp_path / "whole"), letters_folder(tmp_path / "other", noise=noise)
    reader = AnswerReader.over(folder, open_reader(folder, device="cpu"))
    found = qualify(
        variant=loaded(other, tmp_path),
        reference=loaded(folder, tmp_path),
        evaluation=evaluation(300),
        reader=reader,
        margins={Tier.NIGHTLY: 3.0},
    )

    assert found.comparison is Comparison.LIKELIHOOD
    assert [(each.decision.verdict, each.decision.reason) for each in found.tiers] == [(verdict, reason)]
    assert found.interval[0] <= found.difference <= min(0.0, found.interval[1])
    assert found.difference == pytest.approx(fmean(each.x for each in found.outcomes if each.x is not None))
    continued = SequentialTest.from_plain(json.loads(json.dumps(found.test_state)))
    assert continued.decisions() == found.decisions
    assert continued.log_beyond(3.0) == pytest.approx(found.path[-1].log_against[0])
    report = report_of(found)
    assert report["evaluation"]["comparison"] == "likelihood"
    assert json.dumps(report, allow_nan=False)
    assert "less likely by more than" in page_of(found)


@needs_openvino
def test_both_forms_of_a_model_show_the_same_distributions(tiny_folders: Folders, tmp_path: Path) -> None:
    folder = tiny_folders(0.0)
    export(folder, tmp_path / "exported", Recipe.NATIVE)
    torch_reader, openvino_reader = open_reader(folder, device="cpu"), open_reader(tmp_path / "exported")

    sequences = [TokenSequence(tokens=TOKENS, start=10), TokenSequence(tokens=TOKENS[::-1], start=1)]
    found = divergence(sequences, variant=openvino_reader, reference=torch_reader)

    assert isinstance(found, Divergence)
    assert found.positions == 40 + 49
    assert found.max_nats < 1e-4
    assert found.same_top_share == 1
    # What was read before leaves nothing behind.
    assert np.array_equal(openvino_reader.read(TOKENS, 10), openvino_reader.read(TOKENS, 10))
    torch_reader.close()
    openvino_reader.close()


def test_a_folder_without_a_model_shows_no_logits(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="shows no logits"):
        open_reader(tmp_path)


def test_an_unknown_dtype_is_named(tiny_folders: Folders) -> None:
    with pytest.raises(ModelUnavailableError, match="unknown dtype int3"):
        open_reader(tiny_folders(0.0), device="cpu", dtype="int3")


def test_vocabularies_of_different_size_are_not_compared() -> None:
    class Fixed:
        def __init__(self, words: int) -> None:
            self._words = words

        def read(self, tokens: Sequence[int], start: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
            return np.zeros((len(tokens) - start, self._words))

        def close(self) -> None:
            pass

    with pytest.raises(GateError, match="vocabularies differ"):
        divergence([TokenSequence(tokens=(1, 2), start=1)], variant=Fixed(3), reference=Fixed(4))
