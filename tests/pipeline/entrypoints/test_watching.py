from __future__ import annotations

import pytest

from pipeline.domain.shadow import Watch
from pipeline.domain.tiers import Tier
from pipeline.entrypoints.cli.watching import print_watched, watched_document
from pipeline.ports.shadow import Watched


def watched(tier: Tier, margin: float, *xs: float) -> Watched:
    watch = Watch(margin_points=margin)
    for x in xs:
        watch = watch.plus(x, (-1.0, 0.0), tokens=5)
    return Watched(gate_key="key-1", tier=tier, watch=watch, waiting=1234)


def test_what_is_watched_is_told_with_its_figures_and_what_they_show(capsys: pytest.CaptureFixture[str]) -> None:
    print_watched([watched(Tier.URGENT, 1.0, *[-0.2] * 6), watched(Tier.BULK, 2.0, -0.001)])

    urgent, bulk = capsys.readouterr().out.splitlines()[-2:]
    assert [urgent.split()[index] for index in (0, 1, 2, 3, 4)] == ["urgent", "1", "6", "1,234", "-20.00"]
    assert "loses more than it may" in urgent
    assert "no loss beyond" in bulk
    assert "key-1" in bulk


def test_as_json_the_evidence_is_told_too() -> None:
    document = watched_document(watched(Tier.URGENT, 1.0, *[-0.2] * 6))

    assert document["is_beyond"] is True
    assert document["samples"] == 6
    assert document["tokens"] == 30
    assert document["mean_points"] == pytest.approx(-20)
