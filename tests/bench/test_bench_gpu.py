"""The GPU benchmark runs where a card is lent for minutes: here all of it is run on a processor, at toy size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.bench.gpu.bench_gpu import main, parts_of
from tests.bench.gpu.roofline import Model, decode_floor_seconds, prefill_floor_seconds


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_every_part_runs_at_toy_size_and_reports(tmp_path: Path) -> None:
    report = main(["--out", str(tmp_path), "--device", "cpu", "--tiny"])

    parts = report["parts"]
    # A processor without E4M3 says so, as a card would.
    assert "float8 needs a CUDA device" in parts["tiny-float8"].pop("error")
    assert not [name for name, figures in parts.items() if '"error"' in json.dumps(figures)], parts
    assert parts["checks"]["passed"]
    for name in ("tiny-bfloat16", "tiny-int8"):
        figures = parts[name]["slots"]["4"]
        assert figures["mixed"]["is_complete"]
        assert figures["mixed"]["requests_done"] == 10
        assert figures["decode"]["step_milliseconds"] > 0
        assert figures["prefill"]["prompt_tokens_per_second"] > 0
    assert parts["tiny-transformers-continuous"]["requests_done"] == 10
    assert parts["tiny-transformers-static"]["slots"]["4"]["is_complete"]
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"].keys() == parts_of(("tiny",)).keys()


def test_it_needs_nothing_beyond_torch_and_transformers() -> None:
    program = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pydantic", "sqlalchemy", "typer", "rich", "orjson", "celery", "boto3", "psycopg"}:
            raise ImportError("not on that machine: " + name)
sys.meta_path.insert(0, Nothing())
import tests.bench.gpu.bench_gpu
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_an_unknown_part_is_refused_with_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--device", "cpu", "--tiny", "--parts", "tiny-int3"])

    assert "no such part: tiny-int3; there are checks, roofline" in capsys.readouterr().err


def test_the_floor_is_bytes_at_few_rows_and_products_at_many() -> None:
    model = Model(body_parameters=10**9, body_bytes=2 * 10**9, head_parameters=0, head_bytes=0, kv_bytes_per_token=1000)
    few, many = (decode_floor_seconds(model, rows=rows, context=100, flops=1e15, bandwidth=4e12) for rows in (10, 4000))

    assert few == pytest.approx((2e9 + 10 * 100 * 1000) / 4e12)
    assert many == pytest.approx(2 * 4000 * 1e9 / 1e15)
    assert prefill_floor_seconds(model, tokens=1000, rows=1, flops=1e15) == pytest.approx(2e-3)
