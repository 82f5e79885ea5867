"""The ports around a batch's two ends: intake at the start, finalizing at the end.

Both ends are claimed with a fencing token of their own, so that a second process may take over from
a dead one and a zombie's outcome is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final

from pipeline.domain.costs.charging import AT_COST, ChargeTerms
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.files import FilePurpose
from pipeline.domain.ids import DEFAULT_PROJECT, ApiKeyId, BatchId, FileId, ProjectId, TenantId
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import WorkSize


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """What a batch reads its requests from."""

    object_key: str
    sha256: str
    filename: str
    purpose: FilePurpose


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRef:
    """An object and the hash it was stored with: a committed part, a roster, an error file."""

    object_key: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchClaim:
    """A time-boxed exclusive right to take a batch in, or to finalize it."""

    tenant_id: TenantId
    batch_id: BatchId
    claim_token: int
    #: Tries before this one, in the same state, that came to nothing.
    failures: int
    state: BatchState
    endpoint: Endpoint
    project_id: ProjectId
    input_file_id: str
    #: The input file's object, without its purpose's being looked at; None where `input_file_id` names no file.
    source: SourceFile | None
    #: How long its output and error files are kept; None: until they are deleted.
    output_kept_seconds: int | None
    #: The batch that it retries; None: it runs all of its input.
    retry_of: BatchId | None = None
    #: The error file of that batch: the requests to run again. None: all of them.
    rows_again: PartRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LineError:
    """What is wrong with one line of the input, in OpenAI's words."""

    code: str
    message: str
    #: Field, such as `body.model`; None when the whole line is meant.
    param: str | None
    #: 1-based; None when the whole file is meant.
    line: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDraft:
    """A shard that intake wrote."""

    shard_no: int
    model: str
    object_key: str
    sha256: str
    size_bytes: int
    rows: int
    #: Sums over the shard's rows, estimated.
    input_tokens: int
    output_tokens: int
    #: Tells the beginning that all its prompts share; 0 where they share none.
    template: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEstimate:
    """What intake expects of a shard's rows."""

    rows: int
    #: Sums over the rows.
    input_tokens: int
    output_tokens: int
    #: Tells the beginning that all its prompts share; 0 where they share none.
    template: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What intake would make of a file."""

    model: str
    rows_total: int
    rows_duplicate: int
    rows_refused: int
    shards: tuple[ShardEstimate, ...]

    @property
    def size(self) -> WorkSize:
        """Return what all of its distinct rows are expected to be."""
        return WorkSize(
            rows=sum(shard.rows for shard in self.shards),
            input_tokens=sum(shard.input_tokens for shard in self.shards),
            output_tokens=sum(shard.output_tokens for shard in self.shards),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectDraft:
    """Some other object that belongs to a batch, such as a roster or the refusals part."""

    object_key: str
    sha256: str
    size_bytes: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Intake's good outcome: every line is a request."""

    rows_total: int
    #: Requests that say the same as an earlier one of the file and share its result.
    rows_duplicate: int
    #: Requests answered at intake with an error, because no engine could run them as asked.
    rows_refused: int
    shards: tuple[ShardDraft, ...]
    rosters: tuple[ObjectDraft, ...]
    refusals: ObjectDraft | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Intake's bad outcome: the batch fails and nothing runs."""

    #: The first of them, in line order.
    errors: tuple[LineError, ...]
    #: How many there are in all.
    errors_total: int
    rows_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSources:
    """All that the output and error files are made from."""

    rosters: tuple[PartRef, ...]
    #: Rows of each shard, by shard number from 0.
    shard_rows: tuple[int, ...]
    rows_refused: int
    refusals: PartRef | None
    parts: tuple[PartRef, ...]
    #: Code and message for rows that have no result, such as `batch_expired`.
    missing_code: str
    missing_message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFile:
    """One finished file of results."""

    object_key: str
    sha256: str
    size_bytes: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """The files a batch ends with; a file without rows is not written."""

    output: ResultFile | None
    error: ResultFile | None
    #: Rows of the error file that never ran to an answer because the batch ended first.
    rows_missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a user asks for: run this file, this way, by then, for at most so much."""

    tenant_id: TenantId
    #: One of that project's; what names none is refused, or makes a batch that fails, as `may_lack_file` says.
    input_file_id: str
    endpoint: Endpoint
    completion_window: str
    tier: Tier
    budget_micros: int | None
    metadata: dict[str, str] | None
    idempotency_key: str | None
    #: Start nothing before this, unless waiting would risk the deadline.
    hold_until: datetime | None = None
    #: Run it only if its deadline can be promised: nothing starts before that is answered, and a batch whose
    #: deadline cannot be promised fails.
    must_promise: bool = False
    project_id: ProjectId = DEFAULT_PROJECT
    #: The key it is submitted with; None: the command line.
    created_by: ApiKeyId | None = None
    #: What its cost is to be summed up by.
    labels: dict[str, str] | None = None
    #: Among the batches of its tenant in its tier, the highest go first.
    priority: int = 0
    #: How long its output and error files are kept; None: until they are deleted.
    output_kept_seconds: int | None = None
    may_lack_file: bool = False
    #: A batch of the same input that has ended: only its rows without a success are to run. None: all rows are.
    retry_of: BatchId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOrder:
    """How a batch is to be retried; what is not named is as it was."""

    created_by: ApiKeyId | None = None
    #: None: one that the batch has of itself, so that it is retried once.
    idempotency_key: str | None = None
    completion_window: str | None = None
    tier: Tier | None = None
    #: None: what the batch left of its budget.
    budget_micros: int | None = None


class Kept(Enum):
    """Says of a term of a batch that it stays as it is, where None already means that there is none."""

    KEPT = "kept"


KEPT: Final = Kept.KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """What a user changes of a batch on its way; what is not named stays as it is."""

    #: Holds for rows that are in no pack yet.
    tier: Tier | None = None
    deadline_at: datetime | None = None
    budget_micros: int | Kept | None = KEPT
    #: Start nothing before this, unless waiting would risk the deadline.
    hold_until: datetime | Kept | None = KEPT
    #: True pauses, False resumes.
    is_paused: bool | None = None
    #: Among the batches of its tenant in its tier, the highest go first.
    priority: int | None = None
    labels: dict[str, str] | Kept | None = KEPT
    metadata: dict[str, str] | Kept | None = KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchView:
    """One batch, as people see it: where it stands, how far it got, what it cost so far."""

    batch_id: BatchId
    tenant_id: TenantId
    project_id: ProjectId
    state: BatchState
    reason: Reason | None
    endpoint: Endpoint
    completion_window: str
    tier: Tier
    metadata: dict[str, str] | None
    labels: dict[str, str] | None
    priority: int
    #: The batch whose rows without a success it runs again.
    retry_of: BatchId | None
    budget_micros: int | None
    #: As it was submitted; it need not name a file.
    input_file_id: FileId
    output_file_id: FileId | None
    error_file_id: FileId | None
    errors: tuple[LineError, ...]
    errors_total: int
    #: What the last try at taking the batch in or writing its files failed of; it is tried again.
    trouble: str | None
    #: Lines of the input; 0 until it is validated.
    rows_total: int
    rows_duplicate: int
    rows_refused: int
    #: Distinct rows with a result, live; a duplicate counts once its file line is written.
    rows_succeeded: int
    rows_errored: int
    #: Lines of the output and the error file, None until they are written.
    rows_completed: int | None
    rows_failed: int | None
    input_tokens: int
    output_tokens: int
    cost_micros: int
    currency: str
    models: tuple[str, ...]
    created_at: datetime
    deadline_at: datetime
    promise: Promise
    #: Nothing starts before this, unless waiting would risk the deadline; None: it may start at once.
    hold_until: datetime | None
    #: Since when the batch is paused; None: it is not.
    paused_at: datetime | None
    #: When the user last changed it; None: it runs as it was submitted.
    steered_at: datetime | None
    #: When each state was entered, by state.
    entered_at: dict[BatchState, datetime]
    #: What it is charged, and the factors of its multiplier, in millionths by name.
    terms: ChargeTerms = AT_COST
    charge_factors: dict[str, int] = field(default_factory=dict)
