from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.errors import UsageError
from pipeline.domain.path_fields import check_template, render

BERLIN = ZoneInfo("Europe/Berlin")
#: Half past midnight in Berlin, the year before in UTC.
AT = datetime(2025, 12, 31, 23, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("/data/in.jsonl", "/data/in.jsonl"),
        ("/data/in-{date}.jsonl", "/data/in-2026-01-01.jsonl"),
        ("/data/{date:%Y/%m/%d}/in.jsonl", "/data/2026/01/01/in.jsonl"),
        ("/data/{yesterday}.jsonl", "/data/2025-12-31.jsonl"),
        ("/data/{yesterday:%Y%m%d}.jsonl", "/data/20251231.jsonl"),
        ("/data/{date:%Y-%j}", "/data/2026-001"),
        ("/data/{month}/{week}/{hour}{minute}", "/data/2026-01/2026-W01/0030"),
        ("/data/{utc}", "/data/20251231T233000Z"),
        ("/data/{{date}}", "/data/{date}"),
        ("/data/100%/{date:%d}", "/data/100%/01"),
    ],
)
def test_fields_are_of_the_firing_in_its_zone(template: str, path: str) -> None:
    assert render(check_template(template, option="--input"), AT, BERLIN) == path


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("/data/{day}", "{day} is not known"),
        ("/data/{}", "{} is not known"),
        ("/data/{date", "a brace stands alone"),
        ("/data/date}", "a brace stands alone"),
        ("/data/{date:%B}", "'%B' in {date:%B} is not known"),
        ("/data/{date:%}", "'%' in {date:%} is not known"),
        ("/data/{date:}", "takes no such format"),
        ("/data/{hour:%H}", "takes no such format"),
        ("/data/{date.__class__}", "is not known"),
        ("", "not a path"),
        ("/a\x00b", "not a path"),
        ("/" + "a" * 5000, "longer than 4096"),
    ],
)
def test_what_is_no_field_is_refused_with_those_there_are(template: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_template(template, option="--output")

    assert said in refused.value.message
    assert refused.value.message.startswith("--output: ")


@given(st.text(st.sampled_from("{}:%Yd date/ä"), max_size=20), st.datetimes(timezones=st.just(UTC)))
def test_what_was_checked_can_always_be_rendered(template: str, at: datetime) -> None:
    try:
        check_template(template, option="--input")
    except UsageError:
        return
    # The first and last days of the calendar have none before or after them.
    at = at.replace(year=min(max(at.year, 1970), 9000))

    assert render(template, at, BERLIN) == render(template, at, BERLIN)
    assert "{" not in render(template.replace("{{", "").replace("}}", ""), at, BERLIN)
