"""`nightrate simulate fleet`: policies side by side, pools of a file, and errors, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.entrypoints.cli.main import main

Ran = Callable[..., tuple[int, str, str]]

POOLS = """
[settings]
interval_seconds = 60

[pools.gpu]
boot_seconds = 30
load_seconds = 30
start_spread = 0

[pools.gpu.models."*"]
input_tokens_per_second = 1000
output_tokens_per_second = 100

[[pools.gpu.offers]]
name = "cheap"
market = "spot"
provider = "gcp"
price = 1.0
on_demand_price = 4.0
capacity = {trace = "capacity.csv", column = "zone-a", seconds = 600}

[[pools.gpu.offers]]
name = "steady"
provider = "gcp"
price = 4.0
"""
EXAMPLE = Path(__file__).parents[3] / "examples" / "fleet" / "pools.toml"


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str]) -> Ran:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(("simulate", "fleet", *arguments))
        out, err = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, out, err

    return run


@pytest.fixture
def world(tmp_path: Path) -> tuple[str, ...]:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"at": 0, "rows": 100, "input_tokens": 0, "output_tokens": 180000, "window": "2h"}\n')
    (tmp_path / "capacity.csv").write_text("at,zone-a\n0,1\n600,0\n1200,1\n")
    (tmp_path / "pools.toml").write_text(POOLS)
    return "--trace", str(trace), "--pools", str(tmp_path / "pools.toml")


def test_policies_are_told_side_by_side_with_the_least_possible(
    ran: Ran, world: tuple[str, ...], tmp_path: Path
) -> None:
    page = tmp_path / "fleet.html"

    code, out, err = ran(*world, "--policy", "fixed:steady:1,fixed:cheap:1", "--report", str(page))

    assert code == 0
    assert "SPOT SHARE" in out
    assert "fixed_1" in out
    assert "nobody could have paid less than" in out
    assert "1 batches, 1 pools, 2 offers, 2 policies" in err
    drawn = page.read_text(encoding="utf-8")
    assert drawn.count("<svg role=") == 4
    assert "<script" not in drawn


def test_figures_are_told_as_json(ran: Ran, world: tuple[str, ...]) -> None:
    code, out, _ = ran(*world, "--policy", "fixed:steady:1", "--json")

    told = json.loads(out)
    (figures,) = told["policies"]
    assert code == 0
    # Half an hour of work and a minute of start, at four dollars an hour.
    assert figures["cost"] == pytest.approx(4.0 * 1860 / 3600, rel=0.05)
    assert figures["work_hours"] == pytest.approx(0.5, rel=0.05)
    assert figures["missed"] == 0
    assert 0 < told["lower_bound"] < figures["cost"]


def test_a_slower_start_a_quota_and_other_prices_can_be_tried(ran: Ran, world: tuple[str, ...]) -> None:
    def cost(*asked: str) -> float:
        (figures,) = json.loads(ran(*world, "--json", *asked)[1])["policies"]
        return float(figures["cost"])

    steady = cost("--policy", "fixed:steady:1")

    assert cost("--policy", "fixed:steady:1", "--cold-start", "900") > steady + 0.5
    assert cost("--policy", "fixed:steady:3", "--quota", "1") == pytest.approx(steady)
    assert cost("--policy", "fixed:cheap:1", "--spot-price-factor", "2") == pytest.approx(
        2 * cost("--policy", "fixed:cheap:1"), rel=1e-3
    )


def test_the_example_of_pools_can_be_simulated(ran: Ran) -> None:
    code, out, _ = ran("--pools", str(EXAMPLE), "--hours", "0.5", "--policy", "fixed:on-demand:2", "--json")

    assert code == 0
    assert json.loads(out)["policies"][0]["worker_hours"] > 0


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("interval_seconds = 60", "interval = 60", "pools.toml.settings: 'interval' is unknown"),
        ("interval_seconds = 60", "interval_seconds = 0", "'interval_seconds' is 0"),
        ("boot_seconds = 30", 'boot_seconds = "30"', "pools.toml.pools.gpu: 'boot_seconds' '30' is not a number"),
        ('market = "spot"', 'market = "free"', "offers[0]: 'market' 'free' is not to be had"),
        ('name = "steady"', 'name = "cheap"', "two offers 'cheap'"),
        ("price = 4.0\n", "", "offers[1]: 'price' is missing"),
        ('column = "zone-a"', 'column = "zone-b"', "'zone-b' is not in capacity.csv"),
        ('trace = "capacity.csv"', 'trace = "none.csv"', "none.csv cannot be read"),
        ("[pools.gpu]", "[pools", "pools.toml is not TOML"),
    ],
)
def test_what_is_wrong_with_pools_is_told(
    ran: Ran, world: tuple[str, ...], tmp_path: Path, before: str, after: str, told: str
) -> None:
    (tmp_path / "pools.toml").write_text(
        POOLS.replace(before, after, 1) if before != "price = 4.0\n" else POOLS[: -len(before)]
    )

    code, out, err = ran(*world)

    assert (code in {2, 3}, out) == (True, "")
    assert told in err


@pytest.mark.parametrize("policy", ["magic", "fixed:steady", "fixed:none:2", "fixed:steady:some"])
def test_a_policy_that_is_none_is_refused_with_those_that_are(ran: Ran, world: tuple[str, ...], policy: str) -> None:
    code, _, err = ran(*world, "--policy", policy)

    assert code == 2
    assert "nightrate" in err or "fixed:OFFER:N" in err
