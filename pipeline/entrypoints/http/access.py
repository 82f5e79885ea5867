"""Who asks: API keys looked up, and what they permit."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from anyio import to_thread
from fastapi import Request

from pipeline.app.serving import Service
from pipeline.domain.access import Permission, permissions_of
from pipeline.domain.api_keys import is_key, new_key, read_key
from pipeline.domain.ids import ApiKeyId, ProjectId, TenantId, new_key_id
from pipeline.domain.plans import Plan
from pipeline.entrypoints.http.errors import ApiError
from pipeline.entrypoints.http.gathering import Gathered
from pipeline.entrypoints.http.limiting import RateKeeper
from pipeline.ports.access import KnownKey, Scope

#: A key that was revoked lets nobody in for longer than this.
_KNOWN_SECONDS_MAX: Final = 1.0
_KNOWN_MAX: Final = 10_000
_USED_EVERY_SECONDS: Final = 30.0
_BEARER: Final = "bearer "


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sent a request, and what they may do."""

    key_id: ApiKeyId
    scope: Scope
    #: Where what they make goes.
    home_project_id: ProjectId
    permissions: frozenset[Permission]
    plan: Plan

    @property
    def tenant_id(self) -> TenantId:
        """Return who pays."""
        return self.scope.tenant_id


class Doorkeeper:
    """Knows keys for a second, and notes which were used."""

    def __init__(self, service: Service) -> None:
        """Look keys up in the service's database."""
        self._service = service
        self._known: dict[ApiKeyId, tuple[KnownKey | None, float]] = {}
        self._lookups = Gathered[ApiKeyId, KnownKey](self._look_up)
        self._used: set[ApiKeyId] = set()
        self._used_at = time.monotonic()
        #: Compared with where there is nothing to compare with, so that an unknown key takes as long as a wrong one.
        self._nobody = "0" * 64

    async def caller(self, authorization: str) -> Caller:
        """Return who shows this header, or raise 401 in the same words whatever is wrong with it."""
        written = authorization[len(_BEARER) :].strip() if authorization[: len(_BEARER)].lower() == _BEARER else ""
        key = read_key(written)
        known = None if key is None else await self._look(key.key_id)
        shown = key or new_key(new_key_id())
        is_right = is_key(shown, self._service.pepper, self._nobody if known is None else known.secret_digest)
        if known is None or not known.is_valid or not is_right:
            raise ApiError(
                401,
                "Incorrect API key provided." if authorization else "You did not provide an API key.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        self._used.add(known.key.key_id)
        await self._note_used()
        return Caller(
            key_id=known.key.key_id,
            scope=known.key.scope,
            home_project_id=known.home_project_id,
            permissions=permissions_of(known.key.roles),
            plan=self._service.plans.plan_of(known.key.tenant_id, known.plan),
        )

    async def _look(self, key_id: ApiKeyId) -> KnownKey | None:
        now = time.monotonic()
        known, looked_at = self._known.get(key_id, (None, float("-inf")))
        if now - looked_at < _KNOWN_SECONDS_MAX:
            return known
        known = await self._lookups.get(key_id)
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[key_id] = (known, now)
        return known

    def _look_up(self, key_ids: Sequence[ApiKeyId]) -> Mapping[ApiKeyId, KnownKey]:
        return self._service.keys.known(key_ids)

    async def _note_used(self) -> None:
        if time.monotonic() - self._used_at < _USED_EVERY_SECONDS:
            return
        used, self._used, self._used_at = self._used, set(), time.monotonic()
        await to_thread.run_sync(self._service.keys.used, used)


def permitted(permission: Permission) -> Callable[[Request], Awaitable[Caller]]:
    """Return the dependency of a route that does this kind of thing."""

    async def caller_of(request: Request) -> Caller:
        return await admitted(request, permission)

    return caller_of


async def admitted(request: Request, permission: Permission) -> Caller:
    """Return who sent a request, or raise what keeps them out."""
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    rates: RateKeeper = request.app.state.rates
    caller = await rates.known(request, request.headers.get("authorization", ""), doorkeeper.caller)
    await rates.count(request, caller.tenant_id, caller.plan)
    if permission not in caller.permissions:
        message = f"This API key may not do this: it lacks the permission '{permission}'."
        raise ApiError(403, message, code="forbidden")
    return caller
