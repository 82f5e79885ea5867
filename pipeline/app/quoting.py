"""Quotes: what the scheduler would make of a file, asked without submitting it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, cast

from infra.lending import lent_folder
from pipeline.app.policies import policy_of
from pipeline.app.stack import Stack
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import DEFAULT_TENANT, TenantId
from pipeline.ports.batches import Rejected, Survey
from pipeline.ports.files import FileView
from pipeline.ports.quotes import FileQuote
from pipeline.submit.intake import survey
from pipeline.submit.sealed import SealedSource
from scheduler.prediction.predictions import Predictions
from scheduler.quoting import Asked, expected_tokens, quote
from storage.cycles import CycleRepository
from storage.quotas import QuotaRepository

#: Equal files on equal stacks get equal quotes.
_SEED = 1


def quote_stored(stack: Stack, file: FileView, endpoint: Endpoint, *, windows: Sequence[float]) -> FileQuote | Rejected:
    """Return what each tier offers for a file in the object store; see `quote_file`.

    Raises `ObjectMissingError` and `ObjectCorruptError` where it cannot be read.
    """
    with stack.objects.open(file.object_key) as opened:
        source = SealedSource(opened, sha256=file.sha256, where=file.object_key)
        found = _survey(stack, cast("BinaryIO", source), endpoint)
        source.check()
    return found if isinstance(found, Rejected) else _quote(stack, found, file.tenant_id, endpoint, windows)


def quote_file(stack: Stack, path: Path, endpoint: Endpoint, *, windows: Sequence[float]) -> FileQuote | Rejected:
    """Return what each tier offers for the file, or what is wrong with it; nothing is stored.

    `windows` are the seconds to tell the chances of, the first the one to be promised.
    """
    with path.open("rb") as source:
        found = _survey(stack, source, endpoint)
    return found if isinstance(found, Rejected) else _quote(stack, found, DEFAULT_TENANT, endpoint, windows)


def _survey(stack: Stack, source: BinaryIO, endpoint: Endpoint) -> Survey | Rejected:
    with lent_folder(stack.spool_folder, prefix="survey-") as folder:
        return survey(source, endpoint, models=stack.endpoints_of_models(), spool_folder=folder)


def _quote(stack: Stack, found: Survey, tenant_id: TenantId, endpoint: Endpoint, windows: Sequence[float]) -> FileQuote:
    cycles = CycleRepository(stack.database, silence=timedelta(seconds=stack.settings.lease_seconds))
    predictions = Predictions.recalled(cycles.predictions())
    asked = Asked(tenant_id=tenant_id, endpoint=endpoint, survey=found, window_seconds=windows[0])
    terms = QuotaRepository(stack.database, stack.settings.plan_book).prices(tenant_id, found.model)
    policy = policy_of(stack.settings)
    tiers = quote(asked, cycles.snapshot(), predictions, policy, windows=windows, seed=_SEED, terms=terms)
    return FileQuote(survey=found, tokens=expected_tokens(found, predictions), tiers=tiers)
