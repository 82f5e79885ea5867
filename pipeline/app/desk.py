"""The desk of this machine: what commands ask for, straight from the stack."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from infra.embedded.folder import DataFolder
from pipeline.app.batches import store_input, submit, take_in_claimed
from pipeline.app.results import result_chunks
from pipeline.app.stack import Stack, collect_seldom
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import NotRunningError, StoreUnavailableError
from pipeline.domain.ids import DEFAULT_TENANT
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.results import ResultFormat
from pipeline.ports.access import Scope
from pipeline.ports.batches import BatchView, Rejected, RetryOrder, Steering, Submission
from pipeline.ports.desk import FileFacts, Terms
from pipeline.ports.explain import Explained, OverviewExplained
from pipeline.ports.meters import BatchMeters
from pipeline.ports.quotes import FileQuote
from storage.meters import MeterRepository
from storage.scoped_batches import ScopedBatches

_BLOCK_BYTES: Final = 1024 * 1024
_POLL_SECONDS: Final = 0.1


class LocalDesk:
    """A `Desk` over the stores of this installation: it sees every tenant's batches, and makes the default one's."""

    def __init__(self, stack: Stack) -> None:
        """Ask `stack`, which is open."""
        self._stack = stack

    def submit(
        self,
        path: Path,
        endpoint: Endpoint,
        terms: Terms,
        *,
        on_created: Callable[[BatchView], None],
        must_promise: bool = False,
    ) -> BatchView:
        """Store the file, make its batch and take it in."""
        collect_seldom()
        submission = Submission(
            tenant_id=DEFAULT_TENANT,
            input_file_id=store_input(self._stack, path),
            endpoint=endpoint,
            completion_window=terms.window,
            tier=terms.tier,
            budget_micros=terms.budget_micros,
            metadata=terms.metadata,
            labels=terms.labels,
            idempotency_key=terms.idempotency_key,
            hold_until=terms.hold_until,
            priority=terms.priority,
            must_promise=must_promise,
        )
        return submit(self._stack, submission, on_created=on_created)

    def may_know(self, idempotency_key: str) -> bool:
        """Say whether the key made a batch."""
        return self._stack.batches.made_by(DEFAULT_TENANT, idempotency_key) is not None

    def quote(self, path: Path, endpoint: Endpoint, *, windows: Mapping[str, float]) -> FileQuote | Rejected:
        """Return what each tier offers for the file, or what is wrong with it."""
        from pipeline.app.quoting import quote_file

        return quote_file(self._stack, path, endpoint, windows=list(windows.values()))

    def get(self, batch_id: str) -> BatchView:
        """Return a batch; raises `NotRunningError` where the whole stack was stopped meanwhile."""
        try:
            return self._stack.batches.get(batch_id)
        except StoreUnavailableError as error:
            if DataFolder(self._stack.settings.home_folder).read_state():
                raise
            raise NotRunningError(
                f"the stack is gone; {batch_id} stays in its database",
                hint=f"`nightrate up` and then `nightrate watch {batch_id}` resume it",
            ) from error

    def list(self, *, limit: int, states: Sequence[BatchState] = ()) -> Sequence[BatchView]:
        """Return the newest batches first."""
        return self._stack.batches.list(limit=limit, states=states)

    def cancel(self, batch_id: str) -> BatchView:
        """Withdraw a batch."""
        return self._stack.batches.cancel(batch_id)

    def steer(self, batch_id: str, steering: Steering) -> BatchView:
        """Change a batch on its way."""
        return self._stack.batches.steer(batch_id, steering)

    def retry(self, batch_id: str, order: RetryOrder, *, on_created: Callable[[BatchView], None]) -> BatchView:
        """Make the batch of what is left and take it in, unless a scheduler does that already."""
        collect_seldom()
        view = self._stack.batches.get(batch_id)
        scope = Scope(tenant_id=view.tenant_id, project_id=view.project_id)
        again = ScopedBatches(self._stack.database).retry(batch_id, scope, order)
        on_created(again)
        claim = self._stack.batches.claim([BatchState.VALIDATING], batch_id=again.batch_id)
        if claim is not None:
            take_in_claimed(self._stack, claim)
        while (again := self.get(again.batch_id)).state is BatchState.VALIDATING:
            time.sleep(_POLL_SECONDS)
        return again

    def meters(self, batch_id: str) -> BatchMeters:
        """Return what a batch took of its workers."""
        return MeterRepository(self._stack.database).batch_meters(self._stack.batches.get(batch_id).batch_id)

    def explain(self, subject: str, *, with_history: bool = False) -> Explained:
        """Explain a batch, a pack or a pool, as those hear it who run the installation."""
        from pipeline.app.explaining import explain

        return explain(self._stack, subject, with_history=with_history)

    def overview(self, *, limit: int) -> OverviewExplained:
        """Explain every pool and the batches that most want attention."""
        from pipeline.app.explaining import explain_all

        return explain_all(self._stack, limit=limit)

    def file(self, file_id: str) -> FileFacts:
        """Return what is known of a file."""
        view = self._stack.files.get(file_id)
        return FileFacts(file_id=view.file_id, size_bytes=view.size_bytes, sha256=view.sha256)

    def results(self, view: BatchView, kind: ResultFormat, *, is_partial: bool) -> Iterator[bytes]:
        """Yield the results as they are stored by now."""
        return result_chunks(self._stack, view, kind, is_partial=is_partial)

    def content(self, file: FileFacts) -> Iterator[bytes]:
        """Yield a file's bytes as they are stored."""
        with self._stack.objects.open(self._stack.files.get(file.file_id).object_key) as source:
            while block := source.read(_BLOCK_BYTES):
                yield block
