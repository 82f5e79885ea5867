from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.app.models import Wish, add_variant, allow_variant, known_variant, prepare_variant
from pipeline.app.stack import Stack, open_stack
from pipeline.config import Settings
from pipeline.domain.errors import ConflictError, ModelUnavailableError, NightrateError, UsageError
from pipeline.domain.models import EngineKind, Recipe
from pipeline.domain.tiers import Tier
from pipeline.entrypoints.cli.choices import chosen, chosen_all, options_given
from workers.engine.models import prepared_folder


@pytest.fixture
def stack(database_url: str, tmp_path: Path) -> Iterator[Stack]:
    settings = Settings(home=tmp_path / "home", database_url=SecretStr(database_url), device="cpu", threads=1)
    with open_stack(settings) as opened:
        yield opened


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    return folder


def wish(name: str, **fields: object) -> Wish:
    return Wish(**{"name": name, "options": {}, **fields})  # type: ignore[arg-type] # the fields are the test's


def test_an_added_model_is_served_and_its_variant_takes_after_it(stack: Stack, weights: Path) -> None:
    model = add_variant(stack, wish("mine", source=str(weights)))
    variant = add_variant(stack, wish("mine@int8", recipe=Recipe.INT8_WEIGHTS, options={"slots": 32}))

    assert stack.endpoints_of_models()["mine"] == model.endpoints
    assert known_variant(stack, "mine@int8") == variant
    assert (variant.source, variant.revision) == (model.source, model.revision)
    assert (model.engine, variant.engine) == (EngineKind.AUTO, EngineKind.AUTO)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"name": "mine"}, "where is mine"),
        ({"name": "mine@X"}, "not the name of a variant"),
        ({"name": "other@int8"}, "no model other"),
        ({"name": "other@int8", "source": "/nowhere"}, "no model other"),
        ({"name": "mine", "source": "/nowhere"}, "no model at /nowhere"),
        ({"name": "echo@x", "recipe": Recipe.INT4_WEIGHTS, "engine": EngineKind.TORCH}, "no recipe int4_weights"),
        ({"name": "echo", "source": ""}, "there already"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_with_what_would(
    stack: Stack, wanted: dict[str, object], said: str
) -> None:
    with pytest.raises(NightrateError, match=said):
        add_variant(stack, wish(**wanted))  # type: ignore[arg-type] # as above
    assert stack.registry.variants() == ()


def test_weights_that_changed_since_they_were_added_are_not_loaded(stack: Stack, weights: Path, tmp_path: Path) -> None:
    spec = add_variant(stack, wish("mine", source=str(weights)))
    assert prepared_folder(spec.source, cache_dir=tmp_path, revision=spec.revision) == weights

    (weights / "model.safetensors").write_bytes(b"other weights")

    with pytest.raises(ModelUnavailableError, match="has changed since it was added"):
        prepared_folder(spec.source, cache_dir=tmp_path, revision=spec.revision)


def test_a_reference_needs_nobody_to_allow_it(stack: Stack) -> None:
    with pytest.raises(UsageError, match="may always run"):
        allow_variant(stack, known_variant(stack, "echo"), [Tier.BULK], reason="x", is_allowed=True)


def test_a_name_is_taken_once(stack: Stack, weights: Path) -> None:
    add_variant(stack, wish("mine", source=str(weights)))

    with pytest.raises(ConflictError, match="mine is there already"):
        add_variant(stack, wish("mine", source=str(weights)))


def test_preparing_loads_the_variant(stack: Stack) -> None:
    done = prepare_variant(stack.settings, known_variant(stack, "echo"))

    assert done.added_bytes == 0


def test_words_and_settings_on_the_command_line() -> None:
    assert chosen(Recipe, None, "recipe") is None
    assert chosen_all(Tier, ["bulk", "urgent", "bulk"], "tier") == [Tier.URGENT, Tier.BULK]
    assert options_given(["slots=8", "share=0.5", "ignore_end=true", "name=x=y"]) == {
        "slots": 8,
        "share": 0.5,
        "ignore_end": True,
        "name": "x=y",
    }
    for bad in (["slots"], ["=8"], ["slots="], ["slots=1", "slots=2"]):
        with pytest.raises(UsageError):
            options_given(bad)
    with pytest.raises(UsageError, match="one of urgent, standard"):
        chosen(Tier, "express", "tier")
