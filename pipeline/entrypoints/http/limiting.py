"""Rate limits: of tenants by their plans, and of strangers by their address.

What comes in together is counted together, in one round trip to Redis; a tenant without a limit costs none.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from ipaddress import ip_address, ip_network
from typing import Final, TypeVar

from anyio import to_thread
from fastapi import Request

from infra.rate_limits import RateAsk, RateLimits
from pipeline.app.serving import Service
from pipeline.domain.ids import TenantId
from pipeline.domain.plans import Plan, RouteClass
from pipeline.domain.rates import Grant, Rate, duration, whole_seconds
from pipeline.entrypoints.http.errors import ApiError
from pipeline.entrypoints.http.gathering import Gathered

#: Of requests without a key that lets them in, from one address: far more than people mistype.
STRANGER_RATE: Final = Rate(per_minute=120, burst=240)
#: Where every route of these takes files or parts of them.
_UPLOAD_PATHS: Final = ("/v1/files", "/v1/uploads")
#: These change nothing.
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_RETRY_SECONDS: Final = 2
_REMEMBERED_MAX: Final = 10_000
_US_PER_SECOND: Final = 1_000_000
#: A customer has a network of addresses of this length at least.
_IPV6_PREFIX: Final = 64

Who = TypeVar("Who")


@dataclass(frozen=True, slots=True, eq=False)
class _Ticket:
    """One request at one bucket; equal to itself alone, so that two at once are two."""

    bucket: str
    rate: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What one request was told by its bucket."""

    is_allowed: bool
    remaining: int
    reset_us: int
    retry_us: int


class RateKeeper:
    """Counts requests, and turns away those that come too fast."""

    def __init__(self, service: Service) -> None:
        """Count in the service's Redis."""
        url = service.settings.redis_url
        self._limits = RateLimits(None if url is None else url.get_secret_value())
        self._fails_open = service.settings.rate_limits_fail == "open"
        self._counting = Gathered[_Ticket, Standing](self._count)
        #: Addresses that are to wait, and until when.
        self._waiting: dict[str, float] = {}
        #: Digests of what let somebody in: they are let in again wherever they come from.
        self._welcome: set[bytes] = set()

    async def known(self, request: Request, authorization: str, look_up: Callable[[str], Awaitable[Who]]) -> Who:
        """Return who `look_up` says shows this header; raises 429 for too many wrong ones from the same address.

        An address that is to wait is not even looked up, so that guessing is slow; but who was let in before is not shut
        out by a stranger behind the same proxy.
        """
        address = _address(request)
        digest = blake2b(authorization.encode(), digest_size=16).digest()
        wait_seconds = self._waiting.get(address, 0.0) - time.monotonic() if self._waiting else 0.0
        if wait_seconds > 0 and digest not in self._welcome:
            raise _strangers(int(wait_seconds * _US_PER_SECOND))
        try:
            caller = await look_up(authorization)
        except ApiError:
            standing = await self._take(f"address:{address}", STRANGER_RATE)
            if standing is None or standing.is_allowed:
                raise
            _bound(self._waiting)
            self._waiting[address] = time.monotonic() + standing.retry_us / _US_PER_SECOND
            raise _strangers(standing.retry_us) from None
        _bound(self._welcome)
        self._welcome.add(digest)
        return caller

    async def count(self, request: Request, tenant_id: TenantId, plan: Plan) -> None:
        """Count a tenant's request; raises 429, and 503 where it cannot be counted and is to be."""
        route_class = route_class_of(request.method, request.scope["path"])
        rate = plan.rate_of(route_class)
        if rate is None:
            return
        standing = await self._take(f"tenant:{tenant_id}:{route_class}", rate)
        if standing is None:
            if self._fails_open:
                return
            raise ApiError(
                503,
                "Rate limits cannot be looked up now; try again.",
                code="rate_limits_unavailable",
                headers={"Retry-After": str(_RETRY_SECONDS)},
            )
        request.scope["state"]["rate_headers"] = _headers(rate, standing)
        if not standing.is_allowed:
            seconds = whole_seconds(standing.retry_us)
            raise ApiError(
                429,
                f"Rate limit reached for {route_class} in organization {tenant_id}: limit {rate.per_minute} a minute, "
                f"{rate.burst} at once. Please try again in {seconds}s.",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(seconds)},
            )

    async def look(self, tenant_id: TenantId, plan: Plan) -> Mapping[RouteClass, Grant]:
        """Return where a tenant's rates stand, without taking anything; none of them while Redis is away."""
        rates = {each: rate for each in RouteClass if (rate := plan.rate_of(each)) is not None}
        if not rates:
            return {}
        asks = [RateAsk(bucket=f"tenant:{tenant_id}:{each}", rate=rate, count=0) for each, rate in rates.items()]
        grants = await to_thread.run_sync(self._limits.take, asks)
        return {} if grants is None else dict(zip(rates, grants, strict=True))

    def close(self) -> None:
        """Give the connections back."""
        self._limits.close()

    async def _take(self, bucket: str, rate: Rate) -> Standing | None:
        return await self._counting.get(_Ticket(bucket, rate))

    def _count(self, tickets: Sequence[_Ticket]) -> Mapping[_Ticket, Standing]:
        together: defaultdict[str, list[_Ticket]] = defaultdict(list)
        for ticket in tickets:
            together[ticket.bucket].append(ticket)
        grants = self._limits.take(
            [RateAsk(bucket=bucket, rate=some[-1].rate, count=len(some)) for bucket, some in together.items()]
        )
        if grants is None:
            return {}
        return {
            ticket: _standing(grant, place=place)
            for grant, some in zip(grants, together.values(), strict=True)
            for place, ticket in enumerate(some, 1)
        }


def route_class_of(method: str, path: str) -> RouteClass:
    """Return which rate a request counts for."""
    if method in READING:
        return RouteClass.READS
    is_upload = method == "POST" and any(path == each or path.startswith(f"{each}/") for each in _UPLOAD_PATHS)
    return RouteClass.UPLOADS if is_upload else RouteClass.WRITES


def _standing(grant: Grant, *, place: int) -> Standing:
    """Return what the request in that place, from 1, of those that came together is told."""
    after = max(grant.allowed - place, 0)
    return Standing(
        is_allowed=place <= grant.allowed,
        remaining=grant.remaining + after,
        reset_us=grant.reset_us,
        retry_us=grant.retry_us,
    )


def _headers(rate: Rate, standing: Standing) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-ratelimit-limit-requests", str(rate.per_minute).encode()),
        (b"x-ratelimit-remaining-requests", str(standing.remaining).encode()),
        (b"x-ratelimit-reset-requests", duration(standing.reset_us).encode()),
    ]


def _strangers(retry_us: int) -> ApiError:
    seconds = whole_seconds(retry_us)
    return ApiError(
        429,
        f"Too many requests without a valid API key from this address. Please try again in {seconds}s.",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(seconds)},
    )


def _address(request: Request) -> str:
    return _network_of(request.client.host if request.client else "")


@lru_cache(maxsize=1024)
def _network_of(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return "unknown"
    return host if address.version == 4 else str(ip_network((int(address), _IPV6_PREFIX), strict=False))  # noqa: PLR2004 -- IP version


def _bound(remembered: dict[str, float] | set[bytes]) -> None:
    """Forget everything before there is too much of it."""
    if len(remembered) >= _REMEMBERED_MAX:
        remembered.clear()
