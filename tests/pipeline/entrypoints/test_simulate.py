"""`nightrate simulate`: figures, timeline and errors, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.entrypoints.cli.main import main

Ran = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str]) -> Ran:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(("simulate", *arguments))
        out, err = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, out, err

    return run


def test_a_made_up_hour_has_a_table_and_a_timeline(ran: Ran, tmp_path: Path) -> None:
    page = tmp_path / "timeline.html"

    code, out, err = ran("--hours", "0.5", "--workers", "2", "--report", str(page))

    assert code == 0
    assert "TURNAROUND P95" in out
    assert "prediction error" in out
    assert "rows on 2 workers" in err
    assert "<svg role=" in page.read_text(encoding="utf-8")


def test_equal_seeds_give_equal_figures_and_others_do_not(ran: Ran) -> None:
    given = ("--hours", "0.3", "--lost-share", "0.2", "--stragglers", "0.1", "--json")

    first, again, other = ran(*given), ran(*given), ran(*given, "--seed", "1")

    assert json.loads(first[1]) == json.loads(again[1])
    assert json.loads(first[1]) != json.loads(other[1])


def test_a_trace_is_run_with_the_speed_given(ran: Ran, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"at": 0, "rows": 100, "input_tokens": 1000, "output_tokens": 1000, "tier": "bulk"}\n')

    code, out, _ = ran(str(trace), "--pool-speed", "1000:100", "--workers", "1", "--spread", "0", "--json")

    (tier,) = json.loads(out)["tiers"]
    assert code == 0
    assert (tier["tier"], tier["rows"], tier["finished"]) == ("bulk", 100, 1)
    assert tier["worker_seconds"] == pytest.approx(11.0)


@pytest.mark.parametrize("option", ["--hours", "--batches-an-hour", "--tenants"])
def test_what_a_trace_says_itself_cannot_be_asked_for_beside_it(ran: Ran, tmp_path: Path, option: str) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"at": 0, "rows": 100, "input_tokens": 1000, "output_tokens": 1000}\n')

    code, out, err = ran(str(trace), option, "5")

    assert (code, out) == (2, "")
    assert f"{option} cannot be combined with a trace" in err
    assert "leave out" in err


@pytest.mark.parametrize("speed", ["fast", "0:1", "1", "nan:1", "1:inf"])
def test_a_speed_that_is_none_is_refused(ran: Ran, speed: str) -> None:
    code, _, err = ran("--pool-speed", speed)

    assert code == 2
    assert "write two positive numbers such as 5000:500" in err


def test_a_wrong_trace_is_told_by_line_and_field(ran: Ran, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"at": 0, "rows": -1}\n')

    code, _, err = ran(str(trace))

    assert code == 2
    assert "trace.jsonl line 1: field 'rows' -1 is out of range" in err


def test_a_trace_that_is_not_there_is_told(ran: Ran, tmp_path: Path) -> None:
    code, _, err = ran(str(tmp_path / "none.jsonl"))

    assert code == 3
    assert "there is no file" in err
