"""The gate and the tuner as the command line asks them, on tiny real models and a real registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.app.models import Wish, add_variant, known_variant
from pipeline.app.qualifying import Question, qualify_variant
from pipeline.app.stack import Stack, open_stack
from pipeline.app.tuning import device_of, tune_variant, tuned
from pipeline.config import Settings
from pipeline.domain.errors import NightrateError, UsageError
from pipeline.domain.gates import GateVerdict
from pipeline.domain.models import EngineKind, Recipe
from pipeline.domain.tiers import Tier
from tests.workers.letters import letters_folder
from workers.gate.identity import served_key
from workers.tune.search import Probe


@pytest.fixture
def stack(database_url: str, tmp_path: Path) -> Iterator[Stack]:
    """An installation with a tiny model and a variant of it in another precision."""
    settings = Settings(home=tmp_path / "home", database_url=SecretStr(database_url), device="cpu", threads=1)
    with open_stack(settings) as opened:
        add_variant(
            opened,
            Wish(name="tiny", source=str(letters_folder(tmp_path / "tiny")), engine=EngineKind.TORCH, options={}),
        )
        add_variant(opened, Wish(name="tiny@bf16", recipe=Recipe.BFLOAT16, options={"slots": 8}))
        yield opened


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Items without an expected answer: what the reference makes of the variant's is what counts."""
    lines = [
        {"custom_id": f"item-{n}", "body": {"prompt": f"abc {n}", "max_tokens": 2, "temperature": 0}} for n in range(24)
    ]
    for line in lines:
        line["url"] = "/v1/completions"
    file = tmp_path / "items.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def question(stack: Stack, data: Path, folder: Path, *, variant: str = "tiny@bf16") -> Question:
    return Question(
        variant=known_variant(stack, variant), reference=known_variant(stack, "tiny"), data=data, folder=folder
    )


def test_the_verdicts_are_recorded_for_the_key_that_workers_announce(stack: Stack, data: Path, tmp_path: Path) -> None:
    found = qualify_variant(stack, question(stack, data, tmp_path / "report"))

    recorded = {each.tier: each for each in stack.registry.qualifications("tiny@bf16")}
    assert set(recorded) == set(Tier)
    key = served_key(known_variant(stack, "tiny@bf16"), "cpu")
    for each in found.tiers:
        said = recorded[each.tier]
        assert (said.verdict, said.gate_key, said.reference) == (GateVerdict(each.decision.verdict), key, "tiny")
        assert said.reason
        assert said.relative_cost == pytest.approx(found.pace.relative_cost)
    # 24 items cannot show anything at these margins.
    assert recorded[Tier.URGENT].verdict is GateVerdict.UNDECIDED


def test_the_report_says_what_was_compared_and_is_whole(stack: Stack, data: Path, tmp_path: Path) -> None:
    found = qualify_variant(stack, question(stack, data, tmp_path / "report"))

    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (report["variant"]["recipe"], report["reference"]["recipe"]) == ("bfloat16", "native")
    assert report["evaluation"]["comparison"] == "likelihood"
    assert report["evaluation"]["items_compared"] == 24
    assert report["pace"]["rounds"] >= 1
    assert found.divergence is not None
    assert (tmp_path / "report" / "report.html").read_text().startswith("<!doctype html>")
    assert len((tmp_path / "report" / "outcomes.jsonl").read_text().splitlines()) == 24


def test_a_reference_or_a_stranger_is_not_compared(stack: Stack, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a reference"):
        qualify_variant(stack, question(stack, data, tmp_path, variant="tiny"))
    strange = Question(
        variant=known_variant(stack, "tiny@bf16"), reference=known_variant(stack, "echo"), data=data, folder=tmp_path
    )
    with pytest.raises(UsageError, match="no variant of echo"):
        qualify_variant(stack, strange)
    assert stack.registry.qualifications("tiny@bf16") == ()


def test_a_bad_item_is_named_and_nothing_is_recorded(stack: Stack, data: Path, tmp_path: Path) -> None:
    data.write_text(data.read_text() + '{"custom_id": "x", "body": 3}\n')

    with pytest.raises(NightrateError, match="line 25"):
        qualify_variant(stack, question(stack, data, tmp_path / "report"))
    assert stack.registry.qualifications("tiny@bf16") == ()


def test_what_was_tuned_is_what_the_next_load_uses_unless_told_otherwise(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Probe] = []
    monkeypatch.setattr("pipeline.app.tuning._CACHE_BYTES", 400_000)
    monkeypatch.setattr("pipeline.app.tuning._PROMPT_TOKENS", 10.0)
    # The tiny model's context is 256 tokens, one for each letter.
    monkeypatch.setattr("workers.bench.workload._WORDS_MIN", 2)
    monkeypatch.setattr("workers.bench.workload._WORDS_MAX", 12)

    found = tune_variant(stack, known_variant(stack, "tiny"), on_probe=told.append, window_seconds=0.05)

    tunings = stack.registry.tunings()
    assert [(each.variant, each.options) for each in tunings] == [("tiny", {"slots": found.best.size})]
    assert tuple(told) == found.probes
    plain = known_variant(stack, "tiny")
    assert tuned(plain, tunings, stack.settings).options == {"slots": found.best.size}
    assert tuned(known_variant(stack, "tiny@bf16"), tunings, stack.settings).options == {"slots": 8}
    elsewhere = stack.settings.model_copy(update={"threads": 64})
    assert device_of(elsewhere) != device_of(stack.settings)
    assert tuned(plain, tunings, elsewhere).options == {}


def test_what_generates_no_text_has_no_batch_to_tune(stack: Stack) -> None:
    with pytest.raises(UsageError, match="generates no text"):
        tune_variant(stack, known_variant(stack, "echo"), on_probe=lambda _probe: None, window_seconds=1.0)
