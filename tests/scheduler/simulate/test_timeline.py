"""The timeline: well-formed, in need of nothing else, and true to what happened."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from pipeline.domain.ids import BatchId, PackId, TenantId
from pipeline.domain.promises import Promise
from pipeline.domain.tiers import Tier
from scheduler.simulate.record import BatchRecord, PackRecord, Record
from scheduler.simulate.timeline import page_of


def pack(tier: Tier, begin: float, end: float, *, worker: int = 0, is_lost: bool = False) -> PackRecord:
    return PackRecord(
        pack_id=PackId("pack_1"),
        pool="cpu",
        worker=worker,
        tier=tier,
        packed_at=begin,
        from_seconds=begin,
        to_seconds=end,
        predicted_seconds=end - begin,
        is_lost=is_lost,
        is_whole=not is_lost,
        shares=(),
        rows=(),
    )


def batch(name: str, *, ended: float, is_expired: bool = False, promise: Promise = Promise.DECLINED) -> BatchRecord:
    return BatchRecord(
        batch_id=BatchId(name),
        tenant_id=TenantId("<tenant>"),
        tier=Tier.BULK,
        rows=10,
        rows_done=5,
        arrived_at=0.0,
        deadline_at=50.0,
        started_at=10.0,
        ended_at=ended,
        is_expired=is_expired,
        promise=promise,
    )


def drawn(packs: list[PackRecord], batches: list[BatchRecord]) -> tuple[str, list[ET.Element]]:
    """Return the page, and its figures parsed."""
    record = Record(workers={"cpu": 2}, packs=packs, batches=batches)
    page = page_of(record, title="A & B", table=(("TIER", "ROWS"), ("bulk", "<10>")), facts={"packs": "2"})
    figures = re.findall(r'<svg role="img".*?</svg>', page, re.DOTALL)
    return page, [ET.fromstring(figure) for figure in figures]  # noqa: S314 -- our own


def test_a_worker_s_lane_shows_the_tiers_it_ran_for_as_long_as_it_ran_them() -> None:
    packs = [pack(Tier.URGENT, 0, 25), pack(Tier.BULK, 50, 100), pack(Tier.BULK, 0, 100, worker=1)]

    _, (workers, _) = drawn(packs, [batch("a", ended=100)])

    widths = [(each.get("class"), each.get("width")) for each in workers.iter("rect") if each.get("class") != "lane"]
    assert widths == [("urgent", "250"), ("bulk", "500"), ("bulk", "1000")]


def test_a_lost_worker_is_marked_where_it_was_lost() -> None:
    _, (workers, _) = drawn([pack(Tier.BULK, 0, 40, is_lost=True)], [batch("a", ended=100)])

    (mark,) = [each for each in workers.iter("path") if each.get("class") == "lost"]
    assert str(mark.get("d")).startswith("M510.0 ")


def test_promises_kept_and_broken_and_expiry_have_marks() -> None:
    batches = [
        batch("kept", ended=40, promise=Promise.MADE),
        batch("broken", ended=50, is_expired=True, promise=Promise.MADE),
        batch("late", ended=50, is_expired=True),
    ]

    _, (_, lives) = drawn([pack(Tier.BULK, 10, 40)], batches)

    marks = [[str(each.get("class")) for each in group.iter("path")] for group in lives.iter("g")]
    # In order of arrival, then of name.
    assert marks == [["broken", "late"], ["due"], ["late"]]


def test_the_page_needs_no_script_and_nothing_from_elsewhere_and_names_are_escaped() -> None:
    page, _ = drawn([], [batch("a", ended=1)])

    assert "<script" not in page
    assert "http" not in page
    assert "&lt;tenant&gt;" in page
    assert "<h1>A &amp; B</h1>" in page
    assert "&lt;10&gt;" in page


def test_many_batches_stay_a_page_that_opens() -> None:
    page, (_, lives) = drawn([], [batch(f"b{number:05d}", ended=1) for number in range(5000)])

    assert len(list(lives.iter("g"))) == 600
    assert "The first 600 of 5000 batches." in page


def test_a_run_without_anything_is_a_page_too() -> None:
    page, figures = drawn([], [])

    assert len(figures) == 2
    assert page.endswith("</html>\n")
