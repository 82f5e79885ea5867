"""What the API serves from: the stores of an installation, and who may come in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pipeline.app.references import InputPlaces, input_places
from pipeline.app.stack import Stack, open_stack
from pipeline.config import Settings
from pipeline.domain.access import Role
from pipeline.domain.api_keys import digest, new_key
from pipeline.domain.ids import ProjectId, TenantId, new_key_id, new_project_id, new_tenant_id
from pipeline.domain.names import checked_name
from pipeline.domain.plans import PlanBook
from pipeline.ports.access import KeyDraft, KeySecret, KeyView, Scope, TenantView
from storage.audit import AuditRepository
from storage.budgets import BudgetRepository
from storage.currencies import check_currency
from storage.keys import KeyRepository
from storage.quotas import QuotaRepository
from storage.scoped_batches import ScopedBatches
from storage.tenants import TenantRepository
from storage.uploads import UploadRepository
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
    quotas: QuotaRepository
    plans: PlanBook
    uploads: UploadRepository
    inputs: InputPlaces
    tenants: TenantRepository
    audit: AuditRepository
    webhooks: WebhookRepository
    budgets: BudgetRepository

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
        check_currency(stack.database, settings.currency)
        yield service_of(stack)


def service_of(stack: Stack) -> Service:
    """Return what the API serves from a stack that is open."""
    plans = stack.settings.plan_book
    return Service(
        stack=stack,
        keys=KeyRepository(stack.database),
        batches=ScopedBatches(stack.database, plans),
        quotas=QuotaRepository(stack.database, plans),
        plans=plans,
        uploads=UploadRepository(stack.database),
        inputs=input_places(stack.settings),
        tenants=TenantRepository(stack.database),
        audit=AuditRepository(stack.database),
        webhooks=WebhookRepository(stack.database),
        budgets=BudgetRepository(stack.database),
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
    """Make an API key; returns it with its text, which is told this once and stored nowhere.

    Raises `NotFoundError` for an unknown tenant or project, and `UsageError`.
    """
    key = new_key(new_key_id())
    view = service.keys.add(
        KeyDraft(
            key_id=key.key_id,
            tenant_id=order.tenant_id,
            project_id=order.project_id,
            name=checked_name(order.name, whose="key"),
            roles=tuple(dict.fromkeys(order.roles)),
            secret_digest=digest(key, service.pepper),
            hint=key.hint,
            expires_at=order.expires_at,
        )
    )
    return view, str(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """A key that stands in for another."""

    successor: KeyView
    #: Told this once and stored nowhere.
    text: str
    predecessor: KeyView


def rotate_key(service: Service, key_id: str, scope: Scope, *, overlap: timedelta) -> Rotation:
    """Make a key with the same terms; the old one lets in for `overlap` longer at most.

    Raises `NotFoundError`, and `ConflictError` where the old one lets nobody in any more.
    """
    key = new_key(new_key_id())
    secret = KeySecret(key_id=key.key_id, secret_digest=digest(key, service.pepper), hint=key.hint)
    successor, predecessor = service.keys.rotate(key_id, scope, successor=secret, overlap=overlap)
    return Rotation(successor=successor, text=str(key), predecessor=predecessor)


def make_tenant(service: Service, name: str) -> TenantView:
    """Make a tenant, with the project that its work goes to by default; raises `UsageError`."""
    return service.tenants.create(new_tenant_id(), name, default_project_id=new_project_id())
