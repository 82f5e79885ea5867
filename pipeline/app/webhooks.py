"""Webhooks: made where they may be sent to, and sent: each on a thread, so that a slow receiver holds up none but itself."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol, Self

import orjson

from infra.webhooks import Poster
from pipeline.app.stack import Stack
from pipeline.config import Settings
from pipeline.domain.addresses import policy_of
from pipeline.domain.errors import NightrateError, RefusedError, UsageError
from pipeline.domain.ids import WebhookId
from pipeline.domain.limits import WEBHOOK_SENDERS
from pipeline.domain.webhooks import DisabledReason, can_ever_reach, is_failing, next_try_at, read_url
from pipeline.ports.webhooks import DueDelivery, Posted, Posting, TryOutcome
from storage.webhook_deliveries import DeliveryRepository

_LOG = logging.getLogger(__name__)

_GONE: Final = 410
#: Between two looks at how far batches are, and between two sweeps.
_PROGRESS_EVERY_SECONDS: Final = 2.0
_SWEEP_EVERY_SECONDS: Final = 600.0
_SWEPT_AT_ONCE: Final = 200
_KEPT_FOR: Final = timedelta(days=30)


class UrlRefusedError(RefusedError):
    """This installation sends no webhooks there."""

    code = "url_not_allowed"


class Outlet(Protocol):
    """Sends a webhook once."""

    def post(self, posting: Posting) -> Posted:
        """Return what was answered."""

    def close(self) -> None:
        """End what is being sent."""


def check_url(settings: Settings, url: str) -> str:
    """Return `url` if webhooks may be sent there, as far as that can be known before its name is resolved.

    Raises `UsageError` where it is no URL that webhooks can have, `UrlRefusedError` where the settings forbid it.
    """
    target = read_url(url)
    if target is None:
        raise UsageError(
            "the URL is not one that webhooks can have", hint="https://host/path, ASCII, without a user or a fragment"
        )
    if not can_ever_reach(policy_of(settings.webhook_reach, settings.webhook_hosts), target):
        raise UrlRefusedError(
            "This installation sends no webhooks there",
            hint="https on port 443 of a host with a public address, or a host of `webhook_hosts`",
        )
    return url


@dataclass(slots=True)
class Webhooks:
    """Sends what is due, notices how far batches are, forgets what was told long ago."""

    deliveries: DeliveryRepository
    outlet: Outlet
    now: Callable[[], datetime]
    #: From 0 to 1: where in its jitter a retry lies.
    spread: Callable[[], float] = random.random
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _busy: Counter[WebhookId] = field(default_factory=Counter)
    _is_closed: bool = False
    _progress_at: float = float("-inf")
    _sweep_at: float = float("-inf")
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(WEBHOOK_SENDERS, thread_name_prefix="webhook")
    )

    @classmethod
    def of(cls, stack: Stack) -> Self:
        """Return the sender of an installation; its clock is Postgres's."""
        policy = policy_of(stack.settings.webhook_reach, stack.settings.webhook_hosts)
        return cls(deliveries=DeliveryRepository(stack.database), outlet=Poster(policy), now=stack.recurring.now)

    def run_once(self) -> bool:
        """Start sending what is due; sent it is when it is, nobody waits here."""
        # The alarm, which rings for every commit, is none for these two.
        if time.monotonic() >= self._progress_at:
            self._progress_at = time.monotonic() + _PROGRESS_EVERY_SECONDS
            self.deliveries.tell_progress()
        if time.monotonic() >= self._sweep_at:
            more = self.deliveries.sweep(kept_for=_KEPT_FOR, limit=_SWEPT_AT_ONCE) == _SWEPT_AT_ONCE
            self._sweep_at = time.monotonic() + (0 if more else _SWEEP_EVERY_SECONDS)
        for delivery in self._claim(WEBHOOK_SENDERS):
            self._threads.submit(self._send_all, delivery)
        return False

    def close(self) -> None:
        """Claim nothing more and end what is being sent; it is sent again by whoever leads next."""
        with self._lock:
            self._is_closed = True
        self.outlet.close()
        self._threads.shutdown(wait=True)

    def _claim(self, limit: int) -> list[DueDelivery]:
        with self._lock:
            free = min(limit, WEBHOOK_SENDERS - self._busy.total())
            if self._is_closed or free <= 0:
                return []
            claimed = list(self.deliveries.claim(self.now(), limit=free, busy=self._busy))
            self._busy.update(delivery.webhook_id for delivery in claimed)
            return claimed

    def _send_all(self, first: DueDelivery) -> None:
        """Send one, then whatever else is due: the next look may be seconds away."""
        waiting = [first]
        while waiting:
            delivery = waiting.pop()
            try:
                self._send(delivery)
            except NightrateError as error:
                _LOG.warning("webhook_unrecorded", extra=_named(delivery) | {"reason": str(error)})
                return
            except Exception:  # noqa: BLE001 -- a bug met by one event must not end the thread unheard; it is tried again
                _LOG.exception("webhook_crashed", extra=_named(delivery))
                return
            finally:
                with self._lock:
                    self._busy[delivery.webhook_id] -= 1
                    if not self._busy[delivery.webhook_id]:
                        del self._busy[delivery.webhook_id]
            waiting = self._claim(1)

    def _send(self, delivery: DueDelivery) -> None:
        posted = self.outlet.post(
            Posting(
                url=delivery.url,
                event_id=delivery.event_id,
                body=body_of(delivery),
                secrets=delivery.secrets,
                sent_at=self.now(),
            )
        )
        if self._is_closed and posted.error is not None:
            # It is we who broke off: no failure of the receiver's.
            return
        outcome = judge(delivery, posted, now=self.now(), spread=self.spread())
        recorded = self.deliveries.record(delivery, outcome)
        level = logging.INFO if outcome.error is None else logging.WARNING
        _LOG.log(
            level,
            "webhook_sent" if outcome.error is None else "webhook_failed",
            extra=_named(delivery) | {"status": posted.status, "reason": posted.error, "try_no": delivery.tries + 1},
        )
        if recorded and outcome.disable is not None:
            _LOG.warning("webhook_disabled", extra={"webhook_id": delivery.webhook_id, "reason": str(outcome.disable)})


def body_of(delivery: DueDelivery) -> bytes:
    """Return what is sent: the same bytes at every try."""
    return orjson.dumps(
        {
            "id": delivery.event_id,
            "object": "event",
            "created_at": int(delivery.created_at.timestamp()),
            "type": str(delivery.event_type),
            "data": delivery.data,
        },
        option=orjson.OPT_SORT_KEYS,
    )


def judge(delivery: DueDelivery, posted: Posted, *, now: datetime, spread: float) -> TryOutcome:
    """Return what follows from an answer."""
    if posted.error is None:
        return TryOutcome(at=now, status=posted.status, error=None, next_at=None)
    if posted.status == _GONE:
        return TryOutcome(at=now, status=posted.status, error=posted.error, next_at=None, disable=DisabledReason.GONE)
    return TryOutcome(
        at=now,
        status=posted.status,
        error=posted.error,
        next_at=next_try_at(tries=delivery.tries + 1, now=now, spread=spread),
        disable=DisabledReason.FAILING if is_failing(failing_since=delivery.failing_since, now=now) else None,
    )


def _named(delivery: DueDelivery) -> dict[str, object]:
    return {"webhook_id": delivery.webhook_id, "event_id": delivery.event_id, "event_type": str(delivery.event_type)}
