"""A batch's two ends: handed in and taken in, finalized."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from infra.lending import lent_folder
from pipeline.app.stack import Stack
from pipeline.domain.errors import LeaseLostError, ObjectCorruptError, ObjectMissingError
from pipeline.domain.files import FilePurpose
from pipeline.domain.ids import DEFAULT_TENANT, FileId, new_file_id
from pipeline.domain.limits import CLAIM_FAILURES_MAX
from pipeline.domain.objects.keys import file_key
from pipeline.ports.batches import Admitted, BatchClaim, BatchView, LineError, PartRef, Rejected, Submission
from pipeline.ports.files import FileDraft
from pipeline.ports.vigil import vigil
from pipeline.report.assemble import assemble
from pipeline.submit.again import RowsAgain
from pipeline.submit.intake import take_in
from pipeline.submit.sealed import SealedSource


def store_input(stack: Stack, source: Path) -> FileId:
    """Copy a local file into the object store and record it."""
    file_id = new_file_id()
    stored = stack.objects.put(file_key(DEFAULT_TENANT, file_id), source)
    # A name need not be UTF-8 on disk, but it must be in the database.
    filename = source.name.encode(errors="replace").decode()
    stack.files.add(FileDraft(file_id=file_id, stored=stored, filename=filename))
    return file_id


def submit(
    stack: Stack,
    submission: Submission,
    *,
    on_created: Callable[[BatchView], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> BatchView:
    """Make the batch and take it in; returns it admitted or failed.

    Where the process dies on the way, the scheduler takes the batch in instead; `on_created` hears
    which batch that is.
    """
    view = stack.batches.submit(submission)
    claim = stack.batches.first_claim(view)
    try:
        if on_created is not None:
            on_created(view)
        if claim is not None:
            take_in_claimed(stack, claim, on_progress=on_progress)
    except BaseException:
        # Whoever hears of the batch may interrupt at once; the scheduler takes it in without waiting.
        if claim is not None:
            stack.batches.release_claim(claim)
        raise
    return stack.batches.get(view.batch_id)


def take_in_claimed(stack: Stack, claim: BatchClaim, *, on_progress: Callable[[int], None] | None = None) -> None:
    """Take a claimed batch in, unless it was cancelled or another took over meanwhile."""
    with _claim_kept(stack, claim):
        outcome = _take_in(stack, claim, on_progress)
        if isinstance(outcome, Admitted):
            stack.batches.admit(claim, outcome)
        else:
            stack.batches.reject(claim, outcome)


def _take_in(stack: Stack, claim: BatchClaim, on_progress: Callable[[int], None] | None) -> Admitted | Rejected:
    file = claim.source
    if file is None or file.purpose is not FilePurpose.BATCH:
        return _unusable(claim)
    try:
        with ExitStack() as resources:
            opened: BinaryIO = resources.enter_context(stack.objects.open(file.object_key))
            source = SealedSource(opened, sha256=file.sha256, where=file.object_key)
            folder = resources.enter_context(lent_folder(stack.spool_folder, prefix="intake-"))
            outcome = take_in(
                claim,
                cast("BinaryIO", source),
                stack.objects,
                models=stack.endpoints_of_models(),
                spool_folder=folder,
                again=None if claim.rows_again is None else _rows_again(stack, claim.rows_again),
                on_progress=on_progress,
            )
            source.check()
            return outcome
    except (ObjectMissingError, ObjectCorruptError) as error:
        if claim.failures < CLAIM_FAILURES_MAX:
            raise
        lost = LineError(code="input_lost", message=f"The input file cannot be read: {error}", param=None, line=None)
        return Rejected(errors=(lost,), errors_total=1, rows_total=0)


def _rows_again(stack: Stack, errors: PartRef) -> RowsAgain:
    """Read which requests have no success from the error file of the batch that is retried."""
    with stack.objects.open(errors.object_key) as opened:
        source = SealedSource(opened, sha256=errors.sha256, where=errors.object_key)
        found = RowsAgain.read(cast("BinaryIO", source))
        source.check()
        return found


def _unusable(claim: BatchClaim) -> Rejected:
    """Return what is wrong with an input file before it is opened, in OpenAI's words where they are known."""
    message = (
        f"Cannot find file {claim.input_file_id}, or organization {claim.tenant_id} does not have access to it."
        if claim.source is None
        else f"File {claim.input_file_id} has the purpose '{claim.source.purpose}'; a batch needs one with the purpose 'batch'."
    )
    error = LineError(code="invalid_request", message=message, param="file_id", line=None)
    return Rejected(errors=(error,), errors_total=1, rows_total=0)


def finalize_claimed(stack: Stack, claim: BatchClaim) -> None:
    """Write a claimed batch's files and end it, unless another took over meanwhile.

    What is missing or damaged is looked for again for some minutes. Then the batch ends without it.
    """
    has_patience = claim.failures < CLAIM_FAILURES_MAX
    with _claim_kept(stack, claim), lent_folder(stack.spool_folder, prefix="result-") as folder:
        rows_of_lost = None if has_patience else stack.batches.rows_of_part
        try:
            assembled = assemble(
                claim,
                stack.batches.result_sources(claim),
                stack.objects,
                spool_folder=folder,
                rows_of_lost=rows_of_lost,
            )
        except (ObjectMissingError, ObjectCorruptError) as error:
            if has_patience:
                raise
            lost = LineError(
                code="results_lost", message=f"The files cannot be written: {error}", param=None, line=None
            )
            stack.batches.give_up(claim, lost)
            return
        stack.batches.publish(claim, assembled, rows_total=stack.batches.get(claim.batch_id).rows_total)


@contextmanager
def _claim_kept(stack: Stack, claim: BatchClaim) -> Iterator[None]:
    """Keep the claim while the block works on it; a claim that another took over ends the block in peace."""
    try:
        with vigil(lambda: stack.batches.renew_claim(claim), every_seconds=stack.settings.lease_seconds / 3):
            yield
    except LeaseLostError:
        return
    except Exception as error:
        # Others come first; without this the batch would wait for the claim to run out, and then be the first again.
        stack.batches.fail_claim(claim, str(error) or type(error).__name__)
        raise
    except BaseException:
        # Interrupted: another may try at once.
        stack.batches.release_claim(claim)
        raise
