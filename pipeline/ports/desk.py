"""What a person at a counter can ask for, whether the stack is in this machine or behind a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.results import ResultFormat
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import BatchView, Rejected, RetryOrder, Steering
from pipeline.ports.explain import Explained, OverviewExplained
from pipeline.ports.meters import BatchMeters
from pipeline.ports.quotes import FileQuote


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a file shall run, checked."""

    tier: Tier
    window: str
    budget_micros: int | None
    metadata: dict[str, str] | None
    idempotency_key: str | None
    hold_until: datetime | None
    priority: int
    #: What its cost is to be summed up by.
    labels: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What a file of the store must turn out to be once it has been read."""

    file_id: str
    size_bytes: int
    sha256: str


class Desk(Protocol):
    """Takes batches in, tells of them, steers them, hands their files out.

    Whatever it cannot do it says by a `NightrateError`: `NotFoundError` for what is not there, `RefusedError` for what may
    not be, `UsageError` for what makes no sense; another where nothing can be said now.
    """

    def submit(
        self,
        path: Path,
        endpoint: Endpoint,
        terms: Terms,
        *,
        on_created: Callable[[BatchView], None],
        must_promise: bool = False,
    ) -> BatchView:
        """Make a batch of a local file and return it taken in, or failed; `on_created` hears of it before it is read."""

    def may_know(self, idempotency_key: str) -> bool:
        """Say whether a batch may have been made under the key; True where that cannot be known."""

    def quote(self, path: Path, endpoint: Endpoint, *, windows: Mapping[str, float]) -> FileQuote | Rejected:
        """Return what each tier offers for a local file, or what is wrong with it; nothing of it stays.

        `windows` are those to tell the chances of, by how they are written, in seconds; the first is to be promised.
        """

    def get(self, batch_id: str) -> BatchView:
        """Return a batch as it stands."""

    def list(self, *, limit: int, states: Sequence[BatchState] = ()) -> Sequence[BatchView]:
        """Return the newest batches first, of the given states or of all."""

    def cancel(self, batch_id: str) -> BatchView:
        """Withdraw a batch."""

    def steer(self, batch_id: str, steering: Steering) -> BatchView:
        """Change a batch on its way."""

    def retry(self, batch_id: str, order: RetryOrder, *, on_created: Callable[[BatchView], None]) -> BatchView:
        """Make a batch of those rows of an ended one that have no success; return it taken in, or failed."""

    def meters(self, batch_id: str) -> BatchMeters:
        """Return what a batch took of its workers."""

    def explain(self, subject: str, *, with_history: bool = False) -> Explained:
        """Say why something stands where it stands."""

    def overview(self, *, limit: int) -> OverviewExplained:
        """Explain all at once."""

    def file(self, file_id: str) -> FileFacts:
        """Return what is known of a file."""

    def results(self, view: BatchView, kind: ResultFormat, *, is_partial: bool) -> Iterator[bytes]:
        """Yield a batch's results in another shape, or those that are finished by now; see `nightrate results`."""

    def content(self, file: FileFacts) -> Iterator[bytes]:
        """Yield a file's bytes; raises at the end of bytes that are not the file's."""
