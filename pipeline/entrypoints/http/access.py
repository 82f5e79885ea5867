"""Who asks: API keys looked up, what they permit, and which project of theirs a request is about."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from anyio import to_thread
from fastapi import Request

from pipeline.app.serving import Service
from pipeline.domain.access import Permission, permissions_of
from pipeline.domain.api_keys import KeyText, is_key, new_key, read_key
from pipeline.domain.ids import ApiKeyId, ProjectId, TenantId, new_key_id
from pipeline.domain.plans import Plan
from pipeline.entrypoints.http.errors import ApiError
from pipeline.entrypoints.http.limiting import READING, RateKeeper
from pipeline.entrypoints.http.remembering import Remembered
from pipeline.ports.access import KnownKey, Scope
from pipeline.ports.acting import Actor, act_as

_LOG = logging.getLogger(__name__)

_USED_EVERY_SECONDS: Final = 30.0
_BEARER: Final = "bearer "
_ID_CHARS_MAX: Final = 64


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
        self._keys = Remembered[ApiKeyId, KnownKey](self._look_up)
        self._projects = Remembered[ProjectId, TenantId](self._look_up_projects)
        self._used: set[ApiKeyId] = set()
        self._used_at = time.monotonic()
        #: Compared with where there is nothing to compare with, so that an unknown key takes as long as a wrong one.
        self._nobody = "0" * 64

    async def caller(self, known: KnownKey, *, organization: str = "", project: str = "") -> Caller:
        """Return who has that key, or raise 401 where the headers say another.

        Args:
            known: The key.
            organization: Whose key they believe to have; empty: they do not say.
            project: Which of their projects the request is about; empty: the key's own, or all of them.
        """
        key = known.key
        scope, home = key.scope, known.home_project_id
        if organization and organization != key.tenant_id:
            raise _mismatched("organization", "OpenAI-Organization", "This API key is not one of that organization's.")
        if project and project != key.project_id:
            await self._check_project(key.scope, project)
            home = ProjectId(project)
            scope = Scope(tenant_id=key.tenant_id, project_id=home)
        self._used.add(key.key_id)
        await self._note_used()
        return Caller(
            key_id=key.key_id,
            scope=scope,
            home_project_id=home,
            permissions=permissions_of(key.roles),
            plan=self._service.plans.plan_of(key.tenant_id, known.plan),
        )

    async def known(self, authorization: str, request_id: str | None = None) -> KnownKey:
        """Return the key that this header shows, or raise 401 in the same words whatever is wrong with it."""
        written = authorization[len(_BEARER) :].strip() if authorization[: len(_BEARER)].lower() == _BEARER else ""
        key = read_key(written)
        known = None if key is None else await self._keys.get(key.key_id)
        shown = key or new_key(new_key_id())
        is_right = is_key(shown, self._service.pepper, self._nobody if known is None else known.secret_digest)
        if known is not None and known.is_valid and is_right:
            return known
        refused = {"key_id": None if key is None else key.key_id, "request_id": request_id}
        _LOG.info("login_refused", extra={**refused, "reason": _why(key, known, is_right=is_right)})
        raise ApiError(
            401,
            "Incorrect API key provided." if authorization else "You did not provide an API key.",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )

    async def _check_project(self, scope: Scope, project: str) -> None:
        # One of another tenant's is as unknown as one that nobody has.
        is_own = scope.project_id is None and len(project) <= _ID_CHARS_MAX
        if not is_own or await self._projects.get(ProjectId(project)) != scope.tenant_id:
            said = "has no such project" if scope.project_id is None else "is confined to another project"
            raise _mismatched("project", "OpenAI-Project", f"This API key {said}.")

    def _look_up(self, key_ids: Sequence[ApiKeyId]) -> Mapping[ApiKeyId, KnownKey]:
        return self._service.keys.known(key_ids)

    def _look_up_projects(self, project_ids: Sequence[ProjectId]) -> Mapping[ProjectId, TenantId]:
        return self._service.tenants.live(project_ids)

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
    headers, request_id = request.headers, request.state.request_id
    look_up = partial(doorkeeper.known, request_id=request_id)
    known = await rates.known(request, headers.get("authorization", ""), look_up)
    caller = await doorkeeper.caller(
        known, organization=headers.get("openai-organization", ""), project=headers.get("openai-project", "")
    )
    request.state.caller = {"tenant_id": caller.tenant_id, "key_id": caller.key_id}
    await rates.count(request, caller.tenant_id, caller.plan)
    if permission not in caller.permissions:
        message = f"This API key may not do this: it lacks the permission '{permission}'."
        raise ApiError(403, message, code="forbidden")
    # What changes nothing is nobody's doing.
    if request.method not in READING:
        act_as(Actor(name=caller.key_id, request_id=request_id))
    return caller


def _why(key: KeyText | None, known: KnownKey | None, *, is_right: bool) -> str:
    """Return what the log says, and the answer never does."""
    if key is None:
        return "malformed"
    if known is None:
        return "unknown"
    if not is_right:
        return "wrong_secret"
    return "expired_or_archived" if known.key.revoked_at is None else "revoked"


def _mismatched(what: str, header: str, said: str) -> ApiError:
    return ApiError(
        401,
        f"The {header} header does not match: {said}",
        code=f"mismatched_{what}",
        headers={"WWW-Authenticate": "Bearer"},
    )
