"""The desk of a server: what commands ask for, over its API."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from infra.remote.address import base_of, checked_key
from infra.remote.downloads import download, stream
from infra.remote.errors import InputRefusedError, ServerAnswerError, ServerUnavailableError
from infra.remote.patience import Clock
from infra.remote.reading import batch_meters, batch_view, explained, file_facts, file_quote, read, rejected
from infra.remote.transport import Document, Transport
from infra.remote.uploads import PARTS_FROM_BYTES, Sent, upload
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import NotFoundError, RefusedError, UsageError
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.money import amount
from pipeline.domain.results import ResultFormat
from pipeline.ports.batches import KEPT, BatchView, Kept, Rejected, RetryOrder, Steering
from pipeline.ports.desk import FileFacts, Terms
from pipeline.ports.explain import Explained, OverviewExplained
from pipeline.ports.meters import BatchMeters
from pipeline.ports.quotes import FileQuote

_PAGE: Final = 100
_POLL_SECONDS: Final = 0.25
#: What an id may be made of, so that it is a part of a path and nothing else.
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


@contextmanager
def open_desk(
    url: str,
    key: str,
    *,
    ca_file: Path | None = None,
    is_clear_text_allowed: bool = False,
    say: Callable[[str], None] | None = None,
    on_sent: Sent | None = None,
) -> Iterator[RemoteDesk]:
    """Open the desk of the server at `url`; raises `UsageError` for what cannot be one.

    Args:
        url: With or without `/v1` at its end.
        key: The API key.
        ca_file: Certificates to trust instead of the system's.
        is_clear_text_allowed: Whether `http://` may lead to another machine.
        say: Hears why something is tried again.
        on_sent: Hears how far an upload is.
    """
    base = base_of(url, is_clear_text_allowed=is_clear_text_allowed)
    clock = Clock() if say is None else Clock(say=say)
    transport = Transport(base, checked_key(key), ca_file=ca_file, clock=clock)
    desk = RemoteDesk(transport, on_sent=on_sent)
    try:
        yield desk
    finally:
        desk.tidy()
        transport.close()


class RemoteDesk:
    """A `Desk` over a server's API: it sees and makes what its key may."""

    def __init__(
        self, transport: Transport, *, on_sent: Sent | None = None, parts_from_bytes: int = PARTS_FROM_BYTES
    ) -> None:
        """Ask by `transport`."""
        self._transport = transport
        self._on_sent = on_sent
        self._parts_from_bytes = parts_from_bytes
        #: Files that were uploaded, and of which no batch can have been made.
        self._unused: dict[Path, str] = {}

    def submit(
        self,
        path: Path,
        endpoint: Endpoint,
        terms: Terms,
        *,
        on_created: Callable[[BatchView], None],
        must_promise: bool = False,
    ) -> BatchView:
        """Upload the file, make a batch of it, and wait until the server has taken it in."""
        file_id = self._uploaded(path)
        asked = _submission(file_id, endpoint, terms, must_promise=must_promise)
        # Whatever becomes of the answer, the server may have made a batch of it from here on.
        del self._unused[path]
        try:
            document = self._make("/v1/batches", asked, terms.idempotency_key)
        except (RefusedError, UsageError):
            self._unused[path] = file_id
            raise
        view = read("batch", batch_view, document)
        on_created(view)
        return self._taken_in(view)

    def may_know(self, idempotency_key: str) -> bool:
        """Return True: servers tell of a key only to who makes a batch with it."""
        del idempotency_key
        return True

    def quote(self, path: Path, endpoint: Endpoint, *, windows: Mapping[str, float]) -> FileQuote | Rejected:
        """Upload the file and ask for quotes of it; it is deleted again unless it is submitted."""
        file_id = self._uploaded(path)
        found: FileQuote | None = None
        for text, seconds in windows.items():
            if found is not None and all(seconds in each.chances for each in found.tiers if each.variant is not None):
                continue
            asked = {"input_file_id": file_id, "endpoint": str(endpoint), "completion_window": text}
            try:
                document = self._transport.ask("POST", "/v1/batches/quote", asked)
            except InputRefusedError as error:
                return rejected(error)
            more = read("quote", lambda told: file_quote(told, windows=windows), document)
            found = more if found is None else _with_chances(found, more)
        assert found is not None, "a quote is asked for some window"
        return found

    def get(self, batch_id: str) -> BatchView:
        """Return a batch as it stands."""
        return self._batch("GET", batch_id)

    def list(self, *, limit: int, states: Sequence[BatchState] = ()) -> Sequence[BatchView]:
        """Return the newest batches first, page by page."""
        views: list[BatchView] = []
        while len(views) < limit:
            query = [("limit", str(min(_PAGE, limit - len(views)))), *(("status", str(state)) for state in states)]
            if views:
                query.append(("after", views[-1].batch_id))
            page = self._transport.ask("GET", "/v1/batches", query=query)
            found = read("list of batches", lambda told: [batch_view(each) for each in told["data"]], page)
            views += found
            if not found or page.get("has_more") is not True:
                break
        return views[:limit]

    def cancel(self, batch_id: str) -> BatchView:
        """Withdraw a batch."""
        return self._batch("POST", batch_id, "/cancel")

    def steer(self, batch_id: str, steering: Steering) -> BatchView:
        """Change a batch on its way."""
        if steering.is_paused is not None:
            return self._batch("POST", batch_id, "/pause" if steering.is_paused else "/resume")
        return self._batch("PATCH", batch_id, document=_changes(steering))

    def retry(self, batch_id: str, order: RetryOrder, *, on_created: Callable[[BatchView], None]) -> BatchView:
        """Have a batch made of what is left of another, and wait until the server has taken it in."""
        asked = {
            "completion_window": order.completion_window,
            "tier": order.tier and str(order.tier),
            "max_cost": None if order.budget_micros is None else amount(order.budget_micros),
        }
        asked = {name: value for name, value in asked.items() if value is not None}
        # Without a key of its own a retry has the batch's: a second try finds what the first one made.
        headers = {} if order.idempotency_key is None else {"Idempotency-Key": order.idempotency_key}
        view = self._batch("POST", batch_id, "/retry", document=asked, headers=headers)
        on_created(view)
        return self._taken_in(view)

    def meters(self, batch_id: str) -> BatchMeters:
        """Return what a batch took of its workers."""
        return read("meters", batch_meters, self._ask("GET", batch_id, "/meters"))

    def explain(self, subject: str, *, with_history: bool = False) -> Explained:
        """Say why a batch stands where it stands, as its tenant may hear it."""
        if not subject.startswith("batch_"):
            raise UsageError(
                f"servers explain batches, and {subject} is none",
                hint="packs and pools are for those who run the server: `nightrate explain` there, without --url",
            )
        query = [("history", "true")] if with_history else []
        return read("explanation", explained, self._ask("GET", subject, "/explain", query=query))

    def overview(self, *, limit: int) -> OverviewExplained:
        """Raise `UsageError`: servers explain one batch at a time."""
        del limit
        raise UsageError(
            "servers explain one batch at a time", hint="`nightrate explain batch_…`; `nightrate list` shows them"
        )

    def file(self, file_id: str) -> FileFacts:
        """Return what is known of a file."""
        return read("file", file_facts, self._transport.ask("GET", f"/v1/files/{_plain(file_id, 'file')}"))

    def results(self, view: BatchView, kind: ResultFormat, *, is_partial: bool) -> Iterator[bytes]:
        """Yield the results as the server makes them; broken off, they cannot be gone on with."""
        query = urlencode({"format": kind, "partial": "true" if is_partial else "false"})
        return stream(self._transport, f"/v1/batches/{_plain(view.batch_id, 'batch')}/results?{query}")

    def content(self, file: FileFacts) -> Iterator[bytes]:
        """Yield a file's bytes, going on where a connection broke off."""
        return download(self._transport, f"/v1/files/{_plain(file.file_id, 'file')}/content", file)

    def tidy(self) -> None:
        """Delete the files that nothing was made of, as far as the server lets us."""
        while self._unused:
            _, file_id = self._unused.popitem()
            self._transport.ask_once("DELETE", f"/v1/files/{file_id}")

    def _uploaded(self, path: Path) -> str:
        if path not in self._unused:
            file_id = upload(self._transport, path, on_sent=self._on_sent, parts_from_bytes=self._parts_from_bytes)
            self._unused[path] = _plain(file_id, "file")
        return self._unused[path]

    def _make(self, path: str, asked: Mapping[str, object], idempotency_key: str | None) -> Document:
        key = idempotency_key or f"nightrate-{uuid.uuid4()}"
        try:
            return self._transport.ask("POST", path, asked, headers={"Idempotency-Key": key})
        except ServerUnavailableError as error:
            hint = f"whether it made the batch is not known: the same with --idempotency-key {key} returns it, and makes no second"
            raise ServerUnavailableError(error.message, hint=hint) from error

    def _taken_in(self, view: BatchView) -> BatchView:
        while view.state is BatchState.VALIDATING:
            self._transport.clock.sleep(_POLL_SECONDS)
            view = self.get(view.batch_id)
        return view

    def _batch(
        self,
        method: str,
        batch_id: str,
        rest: str = "",
        *,
        document: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> BatchView:
        return read("batch", batch_view, self._ask(method, batch_id, rest, document=document, headers=headers))

    def _ask(
        self,
        method: str,
        batch_id: str,
        rest: str = "",
        *,
        document: Mapping[str, object] | None = None,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Document:
        path = f"/v1/batches/{_plain(batch_id, 'batch')}{rest}"
        try:
            return self._transport.ask(method, path, document, query=query, headers=headers)
        except NotFoundError as error:
            raise NotFoundError(f"there is no batch {batch_id}", hint="`nightrate list` shows them") from error
        except ServerUnavailableError as error:
            hint = error.hint or f"the batch is not touched by that; `nightrate watch {batch_id}` follows it"
            raise ServerUnavailableError(error.message, hint=hint) from error


def _plain(given: str, kind: str) -> str:
    """Return an id that may stand in a path; raises `NotFoundError` for what is no id of anything."""
    if _ID.fullmatch(given) is None:
        hint = "`nightrate list` shows them" if kind == "batch" else None
        raise NotFoundError(f"there is no {kind} {given}", hint=hint)
    return given


def _submission(file_id: str, endpoint: Endpoint, terms: Terms, *, must_promise: bool) -> dict[str, object]:
    optional = {
        "metadata": terms.metadata,
        "labels": terms.labels,
        "max_cost": None if terms.budget_micros is None else amount(terms.budget_micros),
        "hold_until": _seconds(terms.hold_until),
    }
    return {
        "input_file_id": file_id,
        "endpoint": str(endpoint),
        "completion_window": terms.window,
        "tier": str(terms.tier),
        "priority": terms.priority,
        "must_promise": must_promise,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _changes(steering: Steering) -> dict[str, object]:
    budget, hold_until = steering.budget_micros, steering.hold_until
    named: dict[str, object] = {
        "tier": steering.tier and str(steering.tier),
        "priority": steering.priority,
        "expires_at": _seconds(steering.deadline_at),
    }
    named = {name: value for name, value in named.items() if value is not None}
    if not isinstance(budget, Kept):
        named["max_cost"] = None if budget is None else amount(budget)
    if not isinstance(hold_until, Kept):
        named["hold_until"] = _seconds(hold_until)
    named |= {
        name: value
        for name, value in (("labels", steering.labels), ("metadata", steering.metadata))
        if value is not KEPT
    }
    return named


def _seconds(at: datetime | None) -> int | None:
    return None if at is None else math.ceil(at.timestamp())


def _with_chances(quote: FileQuote, more: FileQuote) -> FileQuote:
    """Return a quote with the chances of another of the same file."""
    if len(quote.tiers) != len(more.tiers):
        raise ServerAnswerError("the server quoted other tiers the second time")
    tiers = zip(quote.tiers, more.tiers, strict=True)
    return replace(quote, tiers=tuple(replace(one, chances={**other.chances, **one.chances}) for one, other in tiers))
