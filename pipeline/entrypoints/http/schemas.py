"""The shapes of requests and answers, checked on the way in and published as OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.files import UPLOADABLE, FilePurpose
from pipeline.domain.limits import METADATA_KEY_CHARS_MAX, METADATA_PAIRS_MAX, METADATA_VALUE_CHARS_MAX
from pipeline.domain.tiers import Tier

#: Whole minutes, hours or days from 1m to 30d: what `pipeline.domain.windows` reads.
WINDOW: Final = (
    "^([1-9][0-9]{0,3}m|[1-3][0-9]{4}m|4[0-2][0-9]{3}m|43[01][0-9]{2}m|43200m"
    "|[1-9][0-9]{0,1}h|[1-6][0-9]{2}h|7[01][0-9]h|720h|[1-9]d|[12][0-9]d|30d)$"
)
#: Postgres has no place for a NUL.
ID_CHARS_MAX: Final = 128
_PLAIN: Final = r"^[^\x00]*$"
#: More than nothing, with up to six decimals.
_AMOUNT: Final = r"^(0{0,2}[1-9][0-9]{0,8}(\.[0-9]{1,6})?|0{1,2}\.[0-9]{0,5}[1-9]|0{1,2}\.[0-9]{0,4}[1-9]0)$"


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: Takes 5.0 for 5, which it is to JSON Schema. To stand last, or the bounds before it are not published.
WHOLE: Final = BeforeValidator(_whole)
Pairs = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=METADATA_KEY_CHARS_MAX, pattern=_PLAIN)],
        Annotated[str, StringConstraints(strict=True, max_length=METADATA_VALUE_CHARS_MAX, pattern=_PLAIN)],
    ],
    Field(max_length=METADATA_PAIRS_MAX),
    # Written out: of what holds for keys, pydantic's own would let through all that does not match.
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"minLength": 1, "maxLength": METADATA_KEY_CHARS_MAX, "pattern": _PLAIN},
            "additionalProperties": {"type": "string", "maxLength": METADATA_VALUE_CHARS_MAX, "pattern": _PLAIN},
            "maxProperties": METADATA_PAIRS_MAX,
        }
    ),
]
#: Where a page of a list starts.
After = Annotated[
    str | None,
    Query(max_length=ID_CHARS_MAX, pattern=_PLAIN, description="Id of the last one of the page before."),
]
Amount = Annotated[
    str,
    StringConstraints(strict=True, pattern=_AMOUNT),
    Field(description='A positive amount of money, such as "1.50".'),
]
Instant = Annotated[int, Field(strict=True, ge=0, le=253_402_300_799, description="Unix seconds."), WHOLE]
Priority = Annotated[int, Field(strict=True, ge=-100, le=100), WHOLE]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Answered(BaseModel):
    model_config = ConfigDict(extra="allow")


class ExpiresAfter(_Asked):
    """How long files are kept, counted from their creation."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(strict=True, ge=3600, le=2_592_000), WHOLE]


class CreateBatch(_Asked):
    """OpenAI's fields, and from `tier` on what goes beyond them."""

    input_file_id: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=128, pattern=_PLAIN)]
    endpoint: Endpoint
    completion_window: Annotated[
        str, StringConstraints(strict=True, pattern=WINDOW), Field(description="From 1m to 30d, such as 24h.")
    ]
    metadata: Pairs | None = None
    output_expires_after: ExpiresAfter | None = None
    tier: Annotated[Tier, Field(description="Unless named: standard, or the best below it that the plan has.")] = (
        Tier.STANDARD
    )
    priority: Annotated[Priority, Field(description="Among your batches of the tier, the highest go first.")] = 0
    max_cost: Annotated[Amount | None, Field(description="Nothing is started that may be charged beyond it.")] = None
    hold_until: Annotated[
        Instant | None, Field(description="Nothing starts before, unless waiting risks the deadline.")
    ] = None
    labels: Annotated[Pairs | None, Field(description="What its cost is to be summed up by.")] = None
    must_promise: Annotated[bool, Field(strict=True, description="Fail unless its deadline can be promised.")] = False

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "input_file_id": "file_0199aa00000070008000000000000001",
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
                "metadata": {"customer": "c-17"},
                "tier": "bulk",
                "max_cost": "0.50",
            }
        },
    )


class File(_Answered):
    """A file's description."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: FilePurpose
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None
    sha256: str


class FileList(_Answered):
    """A page of files."""

    object: Literal["list"]
    data: list[File]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(_Answered):
    """What was deleted."""

    id: str
    object: Literal["file"]
    deleted: bool


class LineFault(_Answered):
    """What is wrong with a line of the input, or with all of it."""

    code: str
    message: str
    param: str | None
    line: int | None


class LineFaults(_Answered):
    """All that is wrong with the input, the first hundred lines of it."""

    object: Literal["list"]
    data: list[LineFault]


class Counts(_Answered):
    """Rows of a batch."""

    total: int
    completed: int
    failed: int


class Price(_Answered):
    """What a batch is charged: a multiple of what it cost, or prices per million tokens where its model has them."""

    multiplier: str
    #: What it is the product of.
    factors: dict[str, str]
    input_per_million: str | None
    output_per_million: str | None


class Cost(_Answered):
    """Money."""

    amount: str
    currency: str


class Rows(_Answered):
    """Rows of a batch, told apart as its bill does."""

    total: int
    duplicate: int
    refused: int
    #: Distinct rows with a result, live.
    succeeded: int
    errored: int
    #: Lines of the output and the error file, null until they are written.
    completed: int | None
    failed: int | None


class Why(_Answered):
    """Why a batch stands where it stands."""

    code: str
    message: str


class Eta(_Answered):
    """When a batch is likely to end, in Unix seconds, if nothing else comes and no worker goes."""

    earliest: int
    likely: int
    latest: int


class Batch(_Answered):
    """A batch: OpenAI's fields, and from `tier` on what goes beyond them."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str | None
    errors: LineFaults | None
    input_file_id: str
    completion_window: str
    status: Literal[
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
    ]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: Counts
    usage: dict[str, Any] | None
    metadata: dict[str, str] | None
    tier: Tier
    priority: int
    labels: dict[str, str] | None
    project_id: str
    max_cost: str | None
    charged: Annotated[Cost, Field(description="What the tenant pays for it, so far.")]
    cost: Annotated[Cost, Field(description="The same, by its earlier name; not what it cost who runs it.")]
    price: Price
    reason: Why | None
    promise: str
    retry_of: str | None
    hold_until: int | None
    paused_at: int | None
    #: Only where it was asked for.
    eta: Eta | None = None
    errors_total: int
    tenant_id: str
    models: list[str]
    rows: Rows
    trouble: str | None
    steered_at: int | None


class BatchList(_Answered):
    """A page of batches."""

    object: Literal["list"]
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Model(_Answered):
    """A model that batches can name."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    endpoints: list[str]


class ModelList(_Answered):
    """All models."""

    object: Literal["list"]
    data: list[Model]


class Fault(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """The body of every answer that is an error."""

    error: Fault


_SENTENCES: Final = {
    400: "Something in the request makes no sense; `param` says what.",
    404: "There is no such thing, or none that this key sees.",
    408: "The body did not arrive in time.",
    409: "The thing is in a state that does not allow this.",
    413: "The body is too large.",
    415: "The body has the wrong type.",
    416: "The range lies outside the file.",
    422: "The idempotency key was used with other parameters.",
}
#: What every route may answer.
_ALWAYS: Final = {
    401: "There is no such API key.",
    403: "The key lacks a permission.",
    429: "Too many requests; `Retry-After` says when to try again.",
    500: "An error of ours.",
    503: "The service cannot be reached now.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the errors that a route may answer with, for its `responses`."""
    sentences = {status: _SENTENCES[status] for status in statuses} | _ALWAYS
    return {status: {"model": ErrorEnvelope, "description": sentence} for status, sentence in sorted(sentences.items())}


_BINARY: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
CONTENT: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The content.", "content": _BINARY},
    206: {"description": "The range of the content that was asked for.", "content": _BINARY},
    302: {"description": "The content is at `Location`."},
    304: {"description": "The content is the one that `If-None-Match` names."},
}
UPLOAD: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": sorted(UPLOADABLE)},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
                    },
                }
            }
        },
    }
}
