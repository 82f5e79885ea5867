"""Traces: what a line may say, and what is said of lines that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.domain.errors import UsageError
from pipeline.domain.tiers import Tier
from scheduler.simulate.trace import arrivals_of, read_trace

LINE = {"at": 1.5, "rows": 10, "input_tokens": 3000, "output_tokens": 1000}


def arrivals(*lines: object) -> list[str]:
    return [line if isinstance(line, str) else json.dumps(line) for line in lines]


def test_a_line_says_when_whose_and_how_much() -> None:
    whole = LINE | {"tenant": "acme", "tier": "urgent", "model": "small", "window": "90m", "output_tokens_actual": 250}

    (arrival,) = arrivals_of(arrivals(whole), name="t")

    assert (arrival.at_seconds, arrival.tenant_id, arrival.model, arrival.tier) == (1.5, "acme", "small", Tier.URGENT)
    assert (arrival.estimated.rows, arrival.estimated.input_tokens) == (10, 3000)
    assert (arrival.window_seconds, arrival.output_ratio) == (5400, 0.25)


def test_what_a_line_does_not_say_is_the_usual() -> None:
    (arrival,) = arrivals_of(arrivals(LINE), name="t")

    assert (arrival.tenant_id, arrival.model, arrival.tier) == ("tenant", "model", Tier.STANDARD)
    assert (arrival.window_seconds, arrival.output_ratio) == (86_400, 1.0)


def test_arrivals_are_sorted_by_their_times_and_named_by_their_lines() -> None:
    found = arrivals_of(arrivals(LINE | {"at": 9}, "", LINE | {"at": 2}), name="t")

    assert [(each.at_seconds, each.batch_id) for each in found] == [(2, "batch_000003"), (9, "batch_000001")]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "t line 2 is not JSON"),
        ("[1]", "t line 2 is not a JSON object"),
        ({"rows": 1}, "field 'at' is missing"),
        (LINE | {"at": -1}, "field 'at' -1 is out of range"),
        (LINE | {"at": "noon"}, "field 'at' 'noon' is not a number"),
        (LINE | {"at": True}, "field 'at' True is not a number"),
        (json.dumps(LINE | {"at": 1}).replace("1,", "NaN,", 1), "field 'at' nan is not a number"),
        (LINE | {"rows": 0}, "field 'rows' 0 is out of range"),
        (LINE | {"rows": 1.5}, "field 'rows' 1.5 is not a whole number"),
        (LINE | {"tier": "gold"}, "field 'tier' 'gold' is no tier"),
        (LINE | {"tier": [1]}, "field 'tier' [1] is no tier"),
        (LINE | {"tenant": 7}, "field 'tenant' 7 is not a name"),
        (LINE | {"window": "1 day"}, "field 'window' '1 day' is not a window"),
        (LINE | {"output_tokens": 0, "output_tokens_actual": 5}, "field 'output_tokens' is 0 although some came"),
        (LINE | {"row": 1}, "field 'row' is unknown"),
    ],
)
def test_a_wrong_line_is_told_by_its_number_and_field(line: object, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        arrivals_of(arrivals(LINE, line), name="t")

    assert "t line 2" in caught.value.message
    assert told in caught.value.message
    assert caught.value.hint


def test_an_empty_trace_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(b"\n")
    with pytest.raises(UsageError, match="has no arrivals"):
        read_trace(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not UTF-8"):
        read_trace(path)
