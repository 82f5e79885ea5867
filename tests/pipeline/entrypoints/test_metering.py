from __future__ import annotations

from dataclasses import replace

from pipeline.entrypoints.cli.metering import meters_document, meters_facts
from pipeline.ports.meters import BatchMeters

MEASURED = BatchMeters(
    attempts=3,
    fingerprints=("torch-2.13.0-float32-0123456789ab",),
    tokens=9_000,
    engine_us=30_000_000,
    bubble_us=150_000,
    cpu_us=55_000_000,
    engine_steps=500,
    slot_steps_busy=24_000,
    slot_steps=32_000,
    tokens_prefilled=6_000,
    tokens_cached=2_000,
    tokens_generated=3_000,
    tokens_padding=1_000,
    memory_peak_bytes=2**30,
    energy_millijoules=1_800_000,
    energy_sources=("rapl",),
)
NOTHING = BatchMeters(
    attempts=0,
    fingerprints=(),
    tokens=0,
    engine_us=None,
    bubble_us=None,
    cpu_us=None,
    engine_steps=None,
    slot_steps_busy=None,
    slot_steps=None,
    tokens_prefilled=None,
    tokens_cached=None,
    tokens_generated=None,
    tokens_padding=None,
    memory_peak_bytes=None,
    energy_millijoules=None,
    energy_sources=(),
)


def test_figures_are_shares_of_what_was_counted() -> None:
    document = meters_document(MEASURED)

    assert document["tokens_per_engine_second"] == 300.0
    assert document["occupancy"] == 0.75
    assert document["padding_share"] == 0.1
    assert document["cached_share"] == 0.25
    assert document["bubble_share"] == round(0.15 / 30.15, 6)
    assert document["energy_wh"] == 0.5


def test_people_read_what_computed_the_rows_and_how_well() -> None:
    facts = meters_facts(MEASURED)

    assert facts["computed by"] == "torch-2.13.0-float32-0123456789ab"
    assert facts["engine"] == "30.0 s, 300 tokens/s in and out"
    assert facts["occupancy"] == "75.0 % full, 10.0 % padding, 25.0 % prompts from cache, 0.5 % bubble"
    assert facts["energy"] == "0.5 Wh (rapl)"


def test_what_was_not_measured_is_null_for_programs_and_left_out_for_people() -> None:
    document = meters_document(NOTHING)

    assert meters_facts(NOTHING) == {}
    assert document["attempts"] == 0
    assert [document[name] for name in ("occupancy", "padding_share", "bubble_share", "energy_wh")] == [None] * 4


def test_an_engine_that_never_pads_has_no_padding_even_where_its_prompts_are_not_counted() -> None:
    known = replace(MEASURED, tokens_prefilled=None, tokens_cached=None, tokens_padding=0)
    unknown = replace(MEASURED, tokens_prefilled=None)

    assert meters_document(known)["padding_share"] == 0.0
    assert meters_document(unknown)["padding_share"] is None
    assert meters_document(known)["cached_share"] is None


def test_rounding_never_shows_more_than_a_full_engine() -> None:
    assert meters_document(replace(MEASURED, slot_steps_busy=32_001))["occupancy"] == 1.0
