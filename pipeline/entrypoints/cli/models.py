"""`models`: the variants of each model, what the gate said of them, and how they are made ready."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_facts, print_line, print_table, say

if TYPE_CHECKING:  # imported by the commands, so that `nightrate --help` stays instant
    from pipeline.domain.models import ModelSpec
    from pipeline.domain.tiers import Tier
    from pipeline.ports.variants import Qualification

app = typer.Typer(help="Models and their variants.", no_args_is_help=True, rich_markup_mode=None)

VariantArgument = Annotated[str, typer.Argument(metavar="VARIANT", help="MODEL, or MODEL@LABEL.")]
TiersOption = Annotated[
    list[str] | None, typer.Option("--tier", help="Only for this tier; repeatable. Default: every tier.")
]


@app.command("add")
def add(
    variant: VariantArgument,
    *,
    source: Annotated[
        str | None, typer.Option("--source", help="A folder, a GGUF file or a hub id. Default: the model's own.")
    ] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", help="native, bfloat16, int8, int8_weights, …")] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="auto, torch, openvino, vllm, encoder or vision.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="Only on cpu, or only on cuda.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="Setting of the engine; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Add a model, or a variant of one, pinned to the weights that its source has now."""
    from pipeline.app.models import Wish, add_variant
    from pipeline.domain.models import DeviceClass, EngineKind, Recipe
    from pipeline.entrypoints.cli.choices import chosen, options_given
    from pipeline.entrypoints.cli.connection import connected
    from workers.engine.vllm_chat.build import lack_of_vllm

    wish = Wish(
        name=variant,
        source=source,
        engine=chosen(EngineKind, engine, "engine"),
        recipe=chosen(Recipe, recipe, "recipe"),
        device=chosen(DeviceClass, device, "device"),
        options=options_given(option),
    )
    with connected() as stack:
        spec = add_variant(stack, wish)
    if as_json:
        print_document(_document(spec))
        return ExitCode.OK
    print_line(f"{spec.variant}: {spec.recipe} on {spec.engine}, revision {spec.revision or '-'}")
    if lack := lack_of_vllm(spec):
        say(lack)
    if spec.is_reference:
        say(
            f"Workers serve it in a few seconds. `nightrate models prepare {spec.variant}` makes the first batch quick."
        )
    else:
        say(f"It runs once it is accepted: `nightrate models qualify {spec.variant} --against {spec.name}`.")
    return ExitCode.OK


@app.command("prepare")
def prepare(variant: VariantArgument, *, as_json: AsJson = False) -> int:
    """Fetch, convert and quantize what a variant needs on this machine, and load it once."""
    from pipeline.app.models import known_variant, prepare_variant
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.figures import duration, size

    with connected() as stack:
        spec = known_variant(stack, variant)
        done = prepare_variant(stack.settings, spec)
    if as_json:
        figures = {"seconds": done.seconds, "added_bytes": done.added_bytes, "load_seconds": done.load_seconds}
        print_document({"variant": spec.variant, **figures})
    else:
        print_line(
            f"{spec.variant} is ready: {duration(done.seconds)}, {size(done.added_bytes)} new in the cache, "
            f"loads in {duration(done.load_seconds)} from now on"
        )
    return ExitCode.OK


@app.command("list")
def list_variants(*, as_json: AsJson = False) -> int:
    """List the variants with the tiers that may run on each."""
    from pipeline.entrypoints.cli.connection import connected

    with connected() as stack:
        variants = sorted(stack.variants().values(), key=lambda spec: spec.variant)
        said = {spec.variant: stack.registry.qualifications(spec.variant) for spec in variants if not spec.is_reference}
    if as_json:
        print_document([{**_document(spec), "tiers": _tiers(spec, said)} for spec in variants])
        return ExitCode.OK
    heads = ("VARIANT", "ENGINE", "RECIPE", "DEVICE", "TIERS", "REVISION", "SOURCE")
    rows = [
        (
            spec.variant,
            str(spec.engine),
            str(spec.recipe),
            spec.device or "any",
            _tiers_in_words(spec, said),
            spec.revision[:12] or "-",
            spec.source or "-",
        )
        for spec in variants
    ]
    print_table(heads, rows)
    return ExitCode.OK


@app.command("show")
def show(variant: VariantArgument, *, as_json: AsJson = False) -> int:
    """Show all that is known of a variant: what it is made of, every verdict, what was tuned, how it does in production."""
    from pipeline.app.models import known_variant
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.figures import moment
    from pipeline.entrypoints.cli.watching import print_watched, watched_document

    with connected() as stack:
        spec = known_variant(stack, variant)
        said = stack.registry.qualifications(spec.variant)
        watched = stack.shadow.watched(spec.variant)
        tuned = [tuning for tuning in stack.registry.tunings() if tuning.variant == spec.variant]
    if as_json:
        document = {
            **_document(spec),
            "qualifications": [_qualification_document(each) for each in said],
            "watched": [watched_document(each) for each in watched],
            "tunings": [
                {"device": each.device, "options": dict(each.options), "figures": dict(each.figures)} for each in tuned
            ],
        }
        print_document(document)
        return ExitCode.OK
    print_facts(_facts(spec))
    for tuning in tuned:
        found = ", ".join(f"{name} {value}" for name, value in tuning.options.items())
        print_line(f"tuned     {found} on {tuning.device}")
    if watched:
        print_watched(watched)
    if said:
        heads = ("SAID", "TIER", "VERDICT", "COST", "HOLDS FOR", "REASON")
        rows = [
            (
                "-" if each.created_at is None else moment(each.created_at),
                str(each.tier),
                str(each.verdict),
                "-" if each.relative_cost is None else f"{each.relative_cost:.2f}",
                each.gate_key or "anything",
                each.reason,
            )
            for each in said
        ]
        print_line("")
        print_table(heads, rows, right=("COST",))
    return ExitCode.OK


@app.command("qualify")
def qualify(
    variant: VariantArgument,
    *,
    against: Annotated[str | None, typer.Option("--against", help="Default: the model's reference.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Items as JSON lines, see docs/gate.md. Default: built-in ones.")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Folder for the report.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the order in which items are asked.")] = 1,
    items: Annotated[int | None, typer.Option("--items", min=1, help="Ask this many at most.")] = None,
    logits: Annotated[bool, typer.Option("--logits/--no-logits", help="Compare distributions too.")] = True,
    as_json: AsJson = False,
) -> int:
    """Ask the gate whether a variant may stand in for its reference, for each tier, and record what it says."""
    from pipeline.app.models import known_variant
    from pipeline.app.qualifying import Question, qualify_variant
    from pipeline.domain.models import split_variant
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.qualifying import Progress, print_verdicts

    folder = report or Path(f"{variant.replace('/', '-')}-qualification")
    with connected() as stack:
        question = Question(
            variant=known_variant(stack, variant),
            reference=known_variant(stack, against or split_variant(variant)[0]),
            data=data,
            folder=folder,
            seed=seed,
            items_max=items,
            has_logits=logits,
        )
        with Progress() as progress:
            found = qualify_variant(stack, question, on_outcome=progress.note)
    if as_json:
        from workers.gate.report import report_of

        print_document(report_of(found))
    else:
        print_verdicts(found, folder)
    return ExitCode.OK


@app.command("tune")
def tune(
    variant: VariantArgument,
    *,
    window: Annotated[float, typer.Option("--window", min=0.5, help="Seconds a measurement lasts, at least.")] = 5.0,
    as_json: AsJson = False,
) -> int:
    """Find the batch that a variant runs best with on this machine; workers use it from their next load on."""
    from pipeline.app.models import known_variant
    from pipeline.app.tuning import device_of, tune_variant
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.qualifying import say_probe

    with connected() as stack:
        spec = known_variant(stack, variant)
        found = tune_variant(stack, spec, on_probe=say_probe, window_seconds=window)
        device = device_of(stack.settings)
    if as_json:
        probes = [
            {"slots": each.size, "tokens_per_second": each.tokens_per_second, "noise_share": each.noise_share}
            for each in found.probes
        ]
        print_document({"variant": spec.variant, "device": device, "slots": found.best.size, "probes": probes})
    else:
        print_line(
            f"{spec.variant} on {device}: {found.best.size} rows at a time, {found.best.speed:,.0f} tokens/s "
            f"after {len(found.probes)} measurements"
        )
    return ExitCode.OK


@app.command("remove")
def remove(variant: VariantArgument) -> int:
    """Take a variant out of use; packs that wait for it go to the model's reference."""
    from pipeline.domain.errors import ConflictError
    from pipeline.entrypoints.cli.connection import connected

    with connected() as stack:
        added = {spec.variant: spec for spec in stack.registry.variants()}
        if variant in added and added[variant].is_reference:
            others = [spec.variant for spec in added.values() if spec.name == variant and not spec.is_reference]
            if others:
                raise ConflictError(f"{variant} is the reference of {', '.join(others)}", hint="remove these first")
        stack.registry.remove(variant)
    print_line(f"{variant} is removed")
    return ExitCode.OK


@app.command("allow")
def allow(
    variant: VariantArgument,
    *,
    why: Annotated[str, typer.Option("--why", help="The reason, kept with the decision.")],
    tier: TiersOption = None,
) -> int:
    """Let tiers run on a variant whatever the gate says; who reads the verdicts sees that a person did."""
    return _decree(variant, tier, why, is_allowed=True)


@app.command("forbid")
def forbid(
    variant: VariantArgument,
    *,
    why: Annotated[str, typer.Option("--why", help="The reason, kept with the decision.")],
    tier: TiersOption = None,
) -> int:
    """Let tiers not run on a variant, whatever the gate said before; a later qualification may accept it again."""
    return _decree(variant, tier, why, is_allowed=False)


def _decree(variant: str, tier: list[str] | None, why: str, *, is_allowed: bool) -> int:
    from pipeline.app.models import allow_variant, known_variant
    from pipeline.domain.errors import UsageError
    from pipeline.domain.tiers import Tier
    from pipeline.entrypoints.cli.choices import chosen_all
    from pipeline.entrypoints.cli.connection import connected

    if not why.strip():
        raise UsageError("a decision needs a reason", hint="--why 'compared by hand on our own prompts'")
    tiers = chosen_all(Tier, tier, "tier") or list(Tier)
    with connected() as stack:
        allow_variant(stack, known_variant(stack, variant), tiers, reason=why.strip(), is_allowed=is_allowed)
    print_line(f"{variant} is {'allowed' if is_allowed else 'forbidden'} for {', '.join(tiers)}")
    return ExitCode.OK


def _document(spec: ModelSpec) -> dict[str, object]:
    return {
        "variant": spec.variant,
        "model": spec.name,
        "source": spec.source,
        "revision": spec.revision or None,
        "engine": spec.engine,
        "recipe": spec.recipe,
        "device": spec.device,
        "options": dict(spec.options),
        "is_reference": spec.is_reference,
    }


def _facts(spec: ModelSpec) -> dict[str, str]:
    return {
        "variant": spec.variant,
        "model": spec.name + (" (its reference)" if spec.is_reference else ""),
        "source": spec.source or "-",
        "revision": spec.revision or "follows the source",
        "engine": str(spec.engine),
        "recipe": str(spec.recipe),
        "device": spec.device or "any",
        "options": ", ".join(f"{name}={value}" for name, value in spec.options.items()) or "-",
    }


def _qualification_document(each: Qualification) -> dict[str, object]:
    return {
        "tier": each.tier,
        "verdict": each.verdict,
        "gate_key": each.gate_key,
        "reference": each.reference,
        "relative_cost": each.relative_cost,
        "reason": each.reason,
        "report": dict(each.report),
        "created_at": None if each.created_at is None else each.created_at.isoformat(),
    }


def _tiers(spec: ModelSpec, said: dict[str, tuple[Qualification, ...]]) -> list[Tier]:
    """Return the tiers whose last verdict, for whatever key, lets them run."""
    from pipeline.domain.tiers import Tier

    if spec.is_reference:
        return list(Tier)
    last: dict[Tier, Qualification] = {}
    for each in said[spec.variant]:
        last.setdefault(each.tier, each)
    return [tier for tier in Tier if tier in last and last[tier].verdict.lets_run]


def _tiers_in_words(spec: ModelSpec, said: dict[str, tuple[Qualification, ...]]) -> str:
    from pipeline.domain.tiers import Tier

    tiers = _tiers(spec, said)
    if len(tiers) == len(Tier):
        return "all"
    return ", ".join(tiers) or "none yet"
