from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.errors import GateError
from pipeline.domain.tiers import ACCURACY_MARGIN_POINTS, Tier
from tests.workers.gate.scripted import ScriptedEngine, side
from workers.gate.identity import comparison_key, engine_version, numerics
from workers.gate.items import EvaluationSet, read_lines
from workers.gate.page import page_of
from workers.gate.qualification import Qualification, Settings, qualify
from workers.gate.report import SCHEMA, report_of, write_outcomes, write_report
from workers.gate.trial import Comparison, Reason, SequentialTest, Verdict


def chat(count: int, *, is_expecting: bool = True) -> EvaluationSet:
    def line(index: int) -> bytes:
        row: dict[str, Any] = {
            "custom_id": f"{index}",
            "url": "/v1/chat/completions",
            "body": {"messages": [{"role": "user", "content": f"{index}"}]},
            "slice": f"part {index % 3}",
        }
        return json.dumps(row | ({"expected": f"{index}"} if is_expecting else {})).encode()

    return read_lines(map(line, range(count)), name="<numbers>")


def question(body: dict[str, Any]) -> int:
    return int(body["messages"][0]["content"])


def wrong_on(share: float, *, salt: int = 0) -> Callable[[dict[str, Any]], str]:
    def script(body: dict[str, Any]) -> str:
        index = question(body)
        return "wrong" if (index * 7919 + salt) % 1000 < share * 1000 else f"{index}"

    return script


def compared(variant: Callable[[dict[str, Any]], str | None], count: int = 900, **more: Any) -> Qualification:  # noqa: ANN401 -- arguments passed on
    evaluation = more.pop("evaluation", None) or chat(count)
    return qualify(variant=side(variant, recipe="int8"), reference=side(wrong_on(0.2)), evaluation=evaluation, **more)


def test_an_equal_variant_serves_every_tier_and_the_rest_is_not_asked() -> None:
    found = compared(wrong_on(0.2))

    assert all(each.may_serve for each in found.tiers)
    assert [each.tier for each in found.tiers] == list(ACCURACY_MARGIN_POINTS)
    assert found.items_asked < found.items_available
    assert found.items_asked % Settings().round_items == 0
    assert found.pairs is not None
    assert found.pairs.flips == 0


def test_a_worse_variant_serves_no_tier() -> None:
    found = compared(wrong_on(0.4))

    assert {each.decision.verdict for each in found.tiers} == {Verdict.REJECTED}
    assert found.difference == pytest.approx(-0.2, abs=0.08)
    assert found.interval[0] < -0.2 < found.interval[1] < 0
    assert found.mcnemar_p is not None
    assert found.mcnemar_p < 1e-6


def test_a_narrow_margin_may_stay_open_where_a_wide_one_is_shown() -> None:
    found = compared(wrong_on(0.2), 200)
    verdicts = {each.tier: each.decision.verdict for each in found.tiers}

    assert verdicts == {
        Tier.URGENT: Verdict.UNDECIDED,
        Tier.STANDARD: Verdict.UNDECIDED,
        Tier.BULK: Verdict.UNDECIDED,
        Tier.NIGHTLY: Verdict.ACCEPTED,
    }
    assert not found.tiers[0].may_serve
    assert found.items_asked == 200


def test_all_items_are_asked_where_that_is_wanted() -> None:
    assert compared(wrong_on(0.2), 600, settings=Settings(stops_early=False)).items_asked == 600


def test_only_the_margins_asked_are_waited_for() -> None:
    found = compared(wrong_on(0.2), margins={Tier.NIGHTLY: 3.0})

    assert [each.tier for each in found.tiers] == [Tier.NIGHTLY]
    assert found.items_asked <= 256


def test_the_order_is_shuffled_by_the_seed_and_is_the_same_for_the_same_seed() -> None:
    orders = [
        [each.custom_id for each in compared(wrong_on(0.2), 100, settings=Settings(seed=seed)).outcomes]
        for seed in (1, 1, 2)
    ]

    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0], key=int)


def test_outcomes_belong_to_their_items_whatever_order_engines_finish_in() -> None:
    found = compared(wrong_on(0.3), 300, settings=Settings(stops_early=False))

    for each in found.outcomes:
        body = {"messages": [{"content": each.custom_id}]}
        assert each.reference_is_right == (wrong_on(0.2)(body) == each.custom_id)
        assert each.variant_is_right == (wrong_on(0.3)(body) == each.custom_id)


def test_the_test_can_be_continued_from_the_qualification() -> None:
    found = compared(wrong_on(0.25), 300)

    test = SequentialTest.from_plain(json.loads(json.dumps(found.test_state)))

    assert test.tally == found.tally
    assert test.decisions() == found.decisions


def test_without_expected_answers_equal_ones_are_what_counts() -> None:
    found = compared(wrong_on(0.2), evaluation=chat(900, is_expecting=False))

    assert found.comparison is Comparison.AGREEMENT
    assert found.pairs is None
    assert found.disagreement_share == 0
    assert all(each.may_serve for each in found.tiers)


def test_without_expected_answers_different_ones_are_no_proof_of_worse() -> None:
    found = compared(wrong_on(0.4), evaluation=chat(900, is_expecting=False))

    assert {each.decision.reason for each in found.tiers} == {Reason.DIFFERS}


def test_an_item_that_only_the_variant_cannot_answer_counts_as_wrong() -> None:
    found = compared(lambda body: None if question(body) % 10 == 0 else wrong_on(0.2)(body), 300)

    assert found.variant_errors == sum(each.variant_status == 400 for each in found.outcomes) > 10
    assert found.tally.better == 0
    assert found.tally.worse > 5


def test_an_item_that_the_reference_cannot_answer_is_left_out() -> None:
    reference = side(lambda body: None if question(body) < 100 else f"{question(body)}")
    found = qualify(
        variant=side(wrong_on(0.0)), reference=reference, evaluation=chat(300), settings=Settings(stops_early=False)
    )

    assert (found.reference_errors, found.items_compared) == (100, 200)


def test_a_reference_that_answers_nothing_is_an_error_that_says_why() -> None:
    with pytest.raises(GateError, match="none of the 20 items: too long"):
        qualify(variant=side(wrong_on(0)), reference=side(lambda _: None), evaluation=chat(20))


def test_an_engine_that_does_not_serve_the_endpoint_is_refused() -> None:
    engine = ScriptedEngine(lambda _: "x")
    engine.endpoints = frozenset()
    with pytest.raises(GateError, match="the variant scripted does not serve /v1/chat/completions"):
        qualify(variant=replace(side(wrong_on(0)), engine=engine), reference=side(wrong_on(0)), evaluation=chat(5))


# --- embeddings --------------------------------------------------------------------------------


def retrieval(count: int) -> EvaluationSet:
    def lines() -> list[bytes]:
        rows: list[dict[str, Any]] = []
        for index in range(count):
            rows += [
                {"custom_id": f"d{index}", "document": True, "body": {"input": f"{index}"}},
                {"custom_id": f"q{index}", "expected": {"retrieves": [f"d{index}"]}, "body": {"input": f"{index}"}},
            ]
        return [json.dumps({**row, "url": "/v1/embeddings"}).encode() for row in rows]

    return read_lines(lines(), name="numbers")


def embedded(noise: float) -> Callable[[dict[str, Any]], list[float]]:
    def script(body: dict[str, Any]) -> list[float]:
        index = int(body["input"])
        vector = [0.1] * 40
        vector[index % 40] = 1.0 - noise * (index % 4 == 0)
        return vector

    return script


def test_embeddings_are_right_where_they_find_their_document() -> None:
    found = qualify(
        variant=side(embedded(0.98)),
        reference=side(embedded(0.0)),
        evaluation=retrieval(40),
        margins={Tier.NIGHTLY: 3.0},
    )

    assert found.pairs is not None
    assert found.pairs.reference_accuracy == 1
    assert found.cosine_mean is not None
    assert found.cosine_p1 is not None
    assert found.cosine_p1 < found.cosine_mean < 1
    assert found.lengths is None or found.lengths.items == 40


def test_equal_embeddings_agree_without_expected_answers() -> None:
    evaluation = retrieval(40)
    items = tuple(replace(each, expected=None) for each in evaluation.items)
    found = qualify(
        variant=side(embedded(0.0)),
        reference=side(embedded(0.0)),
        evaluation=replace(evaluation, items=items, comparison=Comparison.AGREEMENT),
    )

    assert found.disagreement_share == 0
    assert found.cosine_mean == pytest.approx(1)


# --- identity and reports ----------------------------------------------------------------------


def test_whatever_a_verdict_depends_on_changes_the_key() -> None:
    identity = side(wrong_on(0)).identity
    key = comparison_key(variant=identity, reference=identity, items_digest="d", alpha=0.05)

    for field in ("revision", "recipe", "engine", "engine_version", "numerics"):
        other = replace(identity, **{field: "other"})
        assert comparison_key(variant=other, reference=identity, items_digest="d", alpha=0.05) != key
        assert comparison_key(variant=identity, reference=other, items_digest="d", alpha=0.05) != key
    assert comparison_key(variant=identity, reference=identity, items_digest="e", alpha=0.05) != key
    assert comparison_key(variant=identity, reference=identity, items_digest="d", alpha=0.01) != key
    assert (
        comparison_key(variant=replace(identity, model="alias"), reference=identity, items_digest="d", alpha=0.05)
        == key
    )


def test_this_machine_has_a_class_of_numerics_and_versions() -> None:
    from pipeline.domain.models import EngineKind

    assert numerics("cpu").startswith("cpu ")
    assert all(engine_version(kind).startswith("nightrate ") for kind in EngineKind if kind is not EngineKind.AUTO)


def test_the_report_says_for_every_figure_how_many_items_it_is_of(tmp_path: Path) -> None:
    found = compared(wrong_on(0.25), 300)
    write_report(found, tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())

    assert report == json.loads(json.dumps(report_of(found)))
    assert report["schema"] == SCHEMA
    assert report["difference"]["n"] == report["accuracy"]["n"] == report["disagreement"]["n"] == found.items_compared
    assert sum(each["n"] for each in report["slices"]) == found.items_compared
    assert [point["n"] for point in report["path"]] == sorted({point["n"] for point in report["path"]})
    assert report["path"][-1]["n"] == found.items_compared


def test_every_item_leaves_a_line(tmp_path: Path) -> None:
    found = compared(wrong_on(0.25), 150)
    write_outcomes(found, tmp_path / "outcomes.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "outcomes.jsonl").read_text().splitlines()]

    assert len(rows) == found.items_asked
    assert sum(row["x"] for row in rows) == found.tally.better - found.tally.worse


def test_progress_is_told_item_by_item() -> None:
    seen: list[int] = []
    found = compared(wrong_on(0.2), 150, on_outcome=lambda _, tally: seen.append(tally.items))

    assert seen == list(range(1, found.items_asked + 1))


class Page(HTMLParser):
    """Checks that tags close in order, and collects what would be fetched."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]
        assert tag != "script"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("is_expecting", [True, False])
def test_the_page_stands_alone_and_says_the_verdicts(*, is_expecting: bool) -> None:
    found = compared(wrong_on(0.22), evaluation=chat(400, is_expecting=is_expecting))
    html = page_of(found)
    page = Page()
    page.feed(html)

    assert not page.open
    assert not page.fetched
    assert "url(" not in html
    assert "<numbers>" in page.text
    assert html.count('role="img"') == html.count("<desc")
    assert all(each.decision.reason.sentence in page.text for each in found.tiers)
    assert "nan" not in page.text.lower().replace("nanos", "")
