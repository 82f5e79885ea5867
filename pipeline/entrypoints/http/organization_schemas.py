"""The shapes of `/v1/organization`: OpenAI's admin API where it has one."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.domain.access import Role
from pipeline.domain.audit import AuditAction
from pipeline.domain.names import NAME_CHARS_MAX
from pipeline.entrypoints.http.schemas import ID_CHARS_MAX, WHOLE

LIFE_SECONDS_MIN: Final = 60
LIFE_SECONDS_MAX: Final = 10 * 366 * 86_400
OVERLAP_SECONDS: Final = 3600
OVERLAP_SECONDS_MAX: Final = 30 * 86_400
#: More than there are.
_ROLES_MAX: Final = 16

Name = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=NAME_CHARS_MAX, pattern=r"^[^\x00]*$")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Answered(BaseModel):
    model_config = ConfigDict(extra="allow")


class NameProject(_Asked):
    """What a project is, or is to be called."""

    name: Annotated[Name, Field(description="Unique among your projects that are not archived.")]

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"name": "Support tickets"}})


class CreateKey(_Asked):
    """The terms of a key to be made."""

    name: Name
    roles: Annotated[
        list[Role],
        Field(min_length=1, max_length=_ROLES_MAX, description="What it may do; never more than the key that asks."),
    ] = [Role.SUBMIT]
    project_id: Annotated[
        Annotated[str, StringConstraints(strict=True, min_length=1, max_length=ID_CHARS_MAX, pattern=r"^[^\x00]*$")]
        | None,
        Field(description="What it is confined to. By default, what the key that asks is confined to."),
    ] = None
    expires_in_seconds: Annotated[
        Annotated[int, Field(strict=True, ge=LIFE_SECONDS_MIN, le=LIFE_SECONDS_MAX), WHOLE] | None,
        Field(description="By default it lets in until it is revoked."),
    ] = None

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"name": "nightly export", "roles": ["submit"], "expires_in_seconds": 2_592_000}},
    )


class RotateKey(_Asked):
    """How a key is replaced."""

    overlap_seconds: Annotated[
        int,
        Field(strict=True, ge=0, le=OVERLAP_SECONDS_MAX, description="For how long the old key lets in, too."),
        WHOLE,
    ] = OVERLAP_SECONDS

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"overlap_seconds": 3600}})


class Project(_Answered):
    """A project: a part of the organization's work that keys can be confined to."""

    id: str
    object: Literal["organization.project"]
    name: str
    created_at: int
    archived_at: int | None
    status: Literal["active", "archived"]
    is_default: bool


class Key(_Answered):
    """A key, without what is secret of it."""

    id: str
    object: Literal["organization.api_key"]
    name: str
    redacted_value: str
    roles: list[Role]
    project_id: str | None
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None


class NewKey(Key):
    """A key that was just made."""

    value: Annotated[str, Field(description="The key. It is answered this once, and nobody can make it again.")]


class RotatedKey(NewKey):
    """A key that was just made, and what became of the one that it stands in for."""

    replaces: Key


class KeyDeleted(_Answered):
    """A key that lets nobody in any more."""

    id: str
    object: Literal["organization.api_key.deleted"]
    deleted: bool


class AuditActor(_Answered):
    """Who did it."""

    type: Literal["api_key", "cli", "system"]
    api_key: dict[str, Any] | None


class AuditEntry(_Answered):
    """One thing that somebody did; a field named as its `type` has the `id` of what it was done to, and `data`."""

    id: str
    object: Literal["organization.audit_log"]
    type: AuditAction
    effective_at: int
    actor: AuditActor
    project: dict[str, Any] | None
    request_id: str | None


class ProjectList(_Answered):
    """A page of projects."""

    object: Literal["list"]
    data: list[Project]
    first_id: str | None
    last_id: str | None
    has_more: bool


class KeyList(_Answered):
    """A page of keys."""

    object: Literal["list"]
    data: list[Key]
    first_id: str | None
    last_id: str | None
    has_more: bool


class AuditList(_Answered):
    """A page of the audit log."""

    object: Literal["list"]
    data: list[AuditEntry]
    first_id: str | None
    last_id: str | None
    has_more: bool
