"""Webhooks: what they tell, where they may be sent, when they are sent again. Pure decisions."""

from __future__ import annotations

import base64
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from pipeline.domain.addresses import Address, AddressPolicy, Reach, normal_host, read_address
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.limits import WEBHOOK_URL_CHARS_MAX


class EventType(StrEnum):
    """What an event tells."""

    BATCH_IN_PROGRESS = "batch.in_progress"
    BATCH_PROGRESS = "batch.progress"
    BATCH_COMPLETED = "batch.completed"
    BATCH_FAILED = "batch.failed"
    BATCH_EXPIRED = "batch.expired"
    BATCH_CANCELLED = "batch.cancelled"
    #: A share of a budget is spent.
    BUDGET_ALERT = "budget.alert"
    #: A budget lets nothing new start, or only what is in its core tiers.
    BUDGET_REACHED = "budget.reached"
    #: Sent because somebody asked for it; nobody subscribes to it.
    WEBHOOK_TEST = "webhook.test"


class DisabledReason(StrEnum):
    """Why a webhook is sent nothing."""

    ASKED = "asked"
    #: Its receiver answered 410.
    GONE = "gone"
    #: Nothing has arrived for days.
    FAILING = "failing"


class DeliveryState(StrEnum):
    """Where the telling of one event to one webhook stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GAVE_UP = "gave_up"


#: What each way to end is told as.
ENDS: Final = {
    BatchState.COMPLETED: EventType.BATCH_COMPLETED,
    BatchState.FAILED: EventType.BATCH_FAILED,
    BatchState.EXPIRED: EventType.BATCH_EXPIRED,
    BatchState.CANCELLED: EventType.BATCH_CANCELLED,
}
SUBSCRIBABLE: Final = tuple(kind for kind in EventType if kind is not EventType.WEBHOOK_TEST)
#: In percent of a batch's rows.
PROGRESS_STEPS: Final = (25, 50, 75)

#: Waited after each try that failed: the last try is made 24 hours and 35 minutes after the first.
RETRY_AFTER: Final = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=8),
    timedelta(hours=9),
)
TRIES_MAX: Final = len(RETRY_AFTER) + 1
#: Of each wait, more or less: so that what failed together does not come again together.
_JITTER: Final = 0.1
#: A webhook that nothing arrived at for this long, though something was to, is disabled.
FAILING_FOR_MAX: Final = timedelta(days=5)

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 -- what all secrets begin with
_SECRET_BYTES: Final = 32
_HTTPS_PORT: Final = 443
_HTTP_PORT: Final = 80
_LABEL: Final = "[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_PORT: Final = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
#: As the wire has it: a name or an IPv4 address, no user, no fragment, nothing that would need an escape.
URL_PATTERN: Final = rf"^https?://{_LABEL}(\.{_LABEL})*\.?(:{_PORT})?([/?][A-Za-z0-9/?%:@!$&'()*+,;=._~-]*)?$"
_URL: Final = re.compile(URL_PATTERN)

assert set(ENDS) == {state for state in BatchState if state.is_terminal}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a webhook's URL leads."""

    is_secure: bool
    host: str
    port: int
    #: Path and query, as the first line of a request has them.
    path: str

    @property
    def host_header(self) -> str:
        """Return what the `Host` header says."""
        usual = _HTTPS_PORT if self.is_secure else _HTTP_PORT
        return self.host if self.port == usual else f"{self.host}:{self.port}"


def read_url(url: str) -> Target | None:
    """Return where `url` leads; None where it is no URL that webhooks can have."""
    # `$` would let a line end pass.
    if len(url) > WEBHOOK_URL_CHARS_MAX or _URL.fullmatch(url) is None:
        return None
    parts = urlsplit(url)
    is_secure = parts.scheme == "https"
    return Target(
        is_secure=is_secure,
        host=parts.hostname or "",
        port=parts.port or (_HTTPS_PORT if is_secure else _HTTP_PORT),
        path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )


def may_reach(policy: AddressPolicy, target: Target, host: str, address: Address) -> bool:
    """Say whether a webhook may be sent to `host` at `address`, which it resolved to.

    Without TLS, or to another port than that of https, only to what the installation named.
    """
    if not policy.allows(host, address):
        return False
    return (target.is_secure and target.port == _HTTPS_PORT) or policy.names_it(host, address)


def can_ever_reach(policy: AddressPolicy, target: Target) -> bool:
    """Say whether `target` may be reached at some address; which one it has is known when it is sent to."""
    address = read_address(target.host)
    if policy.reach is Reach.OFF:
        return False
    if address is not None:
        return may_reach(policy, target, target.host, address)
    if normal_host(target.host) in policy.names or policy.networks:
        return True
    return policy.reach is Reach.PUBLIC and target.is_secure and target.port == _HTTPS_PORT


def new_secret() -> str:
    """Return a fresh secret: `whsec_` and 32 random bytes in base64."""
    return _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def next_try_at(*, tries: int, now: datetime, spread: float) -> datetime | None:
    """Return when to send again after `tries` tries that failed, the last just now; None: not again.

    Args:
        tries: How often it was tried, at least once.
        now: When the last try ended.
        spread: From 0 to 1, by chance: how much of the jitter is taken.
    """
    assert tries > 0
    assert 0 <= spread <= 1
    if tries >= TRIES_MAX:
        return None
    return now + RETRY_AFTER[tries - 1] * (1 + _JITTER * (2 * spread - 1))


def is_failing(*, failing_since: datetime | None, now: datetime) -> bool:
    """Say whether nothing has arrived for so long that nothing more is sent."""
    return failing_since is not None and now - failing_since >= FAILING_FOR_MAX
