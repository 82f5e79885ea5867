"""What the API serves from: the stores of an installation, and who may come in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pipeline.app.stack import Stack, open_stack
from pipeline.config import Settings
from pipeline.domain.access import Role
from pipeline.domain.api_keys import digest, new_key
from pipeline.domain.ids import ProjectId, TenantId, new_key_id
from pipeline.ports.access import KeyDraft, KeyView
from storage.keys import KeyRepository
from storage.scoped_batches import ScopedBatches
from storage.webhooks import WebhookRepository

#: A client that asks for a batch is better told soon that Postgres is away than kept waiting.
_AWAY_SECONDS_MAX: Final = 3.0
#: Connections, and so queries at once.
_POOL_SIZE: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Everything behind the API, open."""

    stack: Stack
    keys: KeyRepository
    batches: ScopedBatches
    webhooks: WebhookRepository

    @property
    def settings(self) -> Settings:
        """Return the installation's settings."""
        return self.stack.settings

    @property
    def pepper(self) -> str:
        """Return what digests of keys are made with besides the key."""
        return self.settings.key_pepper.get_secret_value()


@contextmanager
def open_service(settings: Settings) -> Iterator[Service]:
    """Open what the API serves from; `database_url` must be set by now."""
    with open_stack(settings, away_seconds_max=_AWAY_SECONDS_MAX, connections_max=_POOL_SIZE) as stack:
        yield service_of(stack)


def service_of(stack: Stack) -> Service:
    """Return what the API serves from a stack that is open."""
    return Service(
        stack=stack,
        keys=KeyRepository(stack.database),
        batches=ScopedBatches(stack.database),
        webhooks=WebhookRepository(stack.database),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOrder:
    """A key that somebody wants."""

    tenant_id: TenantId
    #: None: for all of the tenant's.
    project_id: ProjectId | None
    name: str
    roles: Sequence[Role]
    expires_at: datetime | None = None


def make_key(service: Service, order: KeyOrder) -> tuple[KeyView, str]:
    """Make an API key; returns it with its text, which is told this once and stored nowhere."""
    key = new_key(new_key_id())
    view = service.keys.add(
        KeyDraft(
            key_id=key.key_id,
            tenant_id=order.tenant_id,
            project_id=order.project_id,
            name=order.name,
            roles=tuple(order.roles),
            secret_digest=digest(key, service.pepper),
            hint=key.hint,
            expires_at=order.expires_at,
        )
    )
    return view, str(key)
