"""`/v1/organization/costs`: what the organization was charged, by day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Final, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from pipeline.domain.access import Permission
from pipeline.domain.money import amount
from pipeline.entrypoints.http import cost_schemas
from pipeline.entrypoints.http.access import Caller, permitted
from pipeline.entrypoints.http.cost_schemas import CostGroupBy
from pipeline.entrypoints.http.documents import Document, answer
from pipeline.entrypoints.http.schemas import ID_CHARS_MAX, errors
from pipeline.entrypoints.http.service import service_of
from pipeline.ports.cost_reports import CostBucket, CostGroup, Period, TenantGroup
from storage.cost_reports import CostReports

router = APIRouter(tags=["Organization"])

_DAYS: Final = 7
_DAYS_MAX: Final = 180
_PROJECTS_MAX: Final = 100
_GROUPS_MAX: Final = len(CostGroupBy)
#: The end of the year 2999: later dates are typing errors, and end at 9999.
_SECONDS_MAX: Final = 32_503_679_999
#: Days before it.
_PAGE: Final = r"^page_[0-9]{1,6}$"
_A_DAY: Final = timedelta(days=1)
#: OpenAI's line items are what was used; ours are models.
_GROUPS: Final = {
    CostGroupBy.PROJECT: TenantGroup.PROJECT,
    CostGroupBy.LINE_ITEM: TenantGroup.MODEL,
    CostGroupBy.MODEL: TenantGroup.MODEL,
    CostGroupBy.TIER: TenantGroup.TIER,
    CostGroupBy.BATCH: TenantGroup.BATCH,
}

ReadingUsage = Annotated[Caller, Depends(permitted(Permission.READ_USAGE))]
Second = Annotated[int, Query(ge=0, le=_SECONDS_MAX)]
ProjectIds = Annotated[
    list[Annotated[str, Query(min_length=1, max_length=ID_CHARS_MAX, pattern=r"^[^\x00]*$")]],
    Query(max_length=_PROJECTS_MAX, description="Only these projects."),
]


@router.get(
    "/v1/organization/costs",
    response_model=cost_schemas.CostPage,
    responses=errors(400),
    summary="List costs",
)
async def list_costs(  # noqa: PLR0913, PLR0917 -- OpenAI's parameters
    request: Request,
    caller: ReadingUsage,
    start_time: Annotated[
        Second | None,
        Query(description="Unix seconds; from its day on, UTC. By default, the six days before and today."),
    ] = None,
    end_time: Annotated[Second | None, Query(description="Unix seconds, not included. By default, now.")] = None,
    bucket_width: Literal["1d"] = "1d",
    project_ids: ProjectIds = [],  # noqa: B006 -- FastAPI copies defaults
    group_by: Annotated[list[CostGroupBy], Query(max_length=_GROUPS_MAX)] = [],  # noqa: B006 -- as above
    limit: Annotated[int, Query(ge=1, le=_DAYS_MAX, description="Days on a page.")] = _DAYS,
    page: Annotated[str | None, Query(pattern=_PAGE, description="`next_page` of the page before.")] = None,
) -> Response:
    """Tell what was charged for each day of use, days without charges too; a confined key is told of its project."""
    del bucket_width  # there is but one
    whole = _days_of(start_time, end_time)
    skipped = 0 if page is None else int(page.removeprefix("page_"))
    first = min(whole.first + timedelta(days=skipped), whole.until)
    shown = Period(first=first, until=min(whole.until, first + timedelta(days=limit)))
    groups = tuple(dict.fromkeys(_GROUPS[group] for group in group_by))
    reports = CostReports(service_of(request).stack.database)
    buckets = await to_thread.run_sync(
        lambda: reports.charges(caller.scope, shown, groups, project_ids=tuple(project_ids))
    )
    has_more = shown.until < whole.until
    return answer(
        {
            "object": "page",
            "data": [_bucket_document(bucket, frozenset(group_by)) for bucket in buckets],
            "has_more": has_more,
            "next_page": f"page_{(shown.until - whole.first).days}" if has_more else None,
        }
    )


def _days_of(start_time: int | None, end_time: int | None) -> Period:
    now = datetime.now(UTC)
    end = now.timestamp() if end_time is None else end_time
    first = now.date() - timedelta(days=_DAYS - 1) if start_time is None else _day_of(start_time)
    last = _day_of(end)
    # An end at midnight does not reach into the day that begins then.
    until = last if end == _seconds(last) else last + _A_DAY
    return Period(first=first, until=max(first, until))


def _bucket_document(bucket: CostBucket, asked: frozenset[CostGroupBy]) -> Document:
    return {
        "object": "bucket",
        "start_time": _seconds(bucket.day),
        "end_time": _seconds(bucket.day + _A_DAY),
        "results": [_result_document(group, asked) for group in bucket.groups],
    }


def _result_document(group: CostGroup, asked: frozenset[CostGroupBy]) -> Document:
    return {
        "object": "organization.costs.result",
        "amount": {"value": amount(group.charged_micros), "currency": group.currency.lower()},
        **{str(each): group.keys[_GROUPS[each]] if each in asked else None for each in CostGroupBy},
        "requests": group.requests,
        "input_tokens": group.input_tokens,
        "output_tokens": group.output_tokens,
    }


def _day_of(at: float) -> date:
    return datetime.fromtimestamp(at, UTC).date()


def _seconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
