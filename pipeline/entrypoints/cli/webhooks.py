"""`nightrate webhooks`: who is told what happens to batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_line, say

if TYPE_CHECKING:
    from pipeline.app.serving import Service
    from pipeline.domain.webhooks import EventType
    from pipeline.ports.access import Scope
    from pipeline.ports.webhooks import DeliveryView, WebhookView

app = typer.Typer(no_args_is_help=True, help="Webhooks: who is told what happens to batches.")

TenantOption = Annotated[str, typer.Option("--tenant", metavar="ID", help="Whose webhook it is.")]
WebhookArgument = Annotated[str, typer.Argument(metavar="ID", help="As `nightrate webhooks list` shows it.")]


@app.command("create")
def create(
    url: Annotated[str, typer.Argument(help="Where it is sent: https://host/path.")],
    *,
    tenant: TenantOption = "tnt_default",
    project: Annotated[
        str | None, typer.Option("--project", metavar="ID", help="Only of this project's batches.")
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option("--event", help="Such as batch.completed; may be repeated. Default: however batches end."),
    ] = None,
    description: Annotated[str, typer.Option("--description", help="What you will know it by.")] = "",
    as_json: AsJson = False,
) -> int:
    """Make a webhook. Its secret goes to stdout, this once."""
    from pipeline.app.webhooks import check_url
    from pipeline.domain.errors import UsageError
    from pipeline.domain.ids import ProjectId, TenantId, new_webhook_id
    from pipeline.domain.limits import WEBHOOK_DESCRIPTION_CHARS_MAX
    from pipeline.domain.webhooks import new_secret
    from pipeline.ports.webhooks import WebhookDraft

    if len(description) > WEBHOOK_DESCRIPTION_CHARS_MAX:
        raise UsageError(f"a webhook's description has at most {WEBHOOK_DESCRIPTION_CHARS_MAX} characters")
    kinds = _event_types(event)
    with _serving(tenant) as (service, scope):
        draft = WebhookDraft(
            webhook_id=new_webhook_id(),
            tenant_id=TenantId(scope.tenant_id),
            project_id=None if project is None else ProjectId(project),
            url=check_url(service.settings, url),
            description=description,
            event_types=kinds,
            secret=new_secret(),
        )
        view = service.webhooks.add(draft)
    if as_json:
        print_document({**_document(view), "secret": draft.secret})
    else:
        print_line(draft.secret)
        say(f"{view.webhook_id} is told {', '.join(view.event_types)}. Its secret is shown this once.")
    return ExitCode.OK


@app.command("list")
def list_webhooks(*, tenant: TenantOption = "tnt_default", as_json: AsJson = False) -> int:
    """Show a tenant's webhooks, without their secrets."""
    from pipeline.domain.limits import WEBHOOKS_PER_TENANT_MAX

    with _serving(tenant) as (service, scope):
        views = service.webhooks.page(scope, limit=WEBHOOKS_PER_TENANT_MAX)
    if as_json:
        print_document({"webhooks": [_document(view) for view in views]})
        return ExitCode.OK
    for view in views:
        print_line(f"{view.webhook_id}  {_standing(view)}  {view.url}  {view.description}".rstrip())
    return ExitCode.OK


@app.command("show")
def show(webhook_id: WebhookArgument, *, tenant: TenantOption = "tnt_default", as_json: AsJson = False) -> int:
    """Show a webhook, without its secret."""
    with _serving(tenant) as (service, scope):
        view = service.webhooks.get(webhook_id, scope)
    _print(view, as_json=as_json)
    return ExitCode.OK


@app.command("rotate")
def rotate(
    webhook_id: WebhookArgument,
    *,
    tenant: TenantOption = "tnt_default",
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="WINDOW", help="How long the secret before signs, too; 7d at most.")
    ] = "24h",
    as_json: AsJson = False,
) -> int:
    """Make a new secret. It goes to stdout, this once; the one before signs beside it for a while."""
    from pipeline.domain.errors import UsageError
    from pipeline.domain.limits import WEBHOOK_OVERLAP_SECONDS_MAX
    from pipeline.domain.webhooks import new_secret
    from pipeline.domain.windows import parse_window

    lasts = parse_window(overlap)
    if lasts > timedelta(seconds=WEBHOOK_OVERLAP_SECONDS_MAX):
        raise UsageError(f"--overlap {overlap} is too long", hint="7d at most")
    secret = new_secret()
    with _serving(tenant) as (service, scope):
        view = service.webhooks.rotate(webhook_id, scope, secret=secret, overlap=lasts)
    if as_json:
        print_document({**_document(view), "secret": secret})
    else:
        print_line(secret)
        say(f"The secret before signs, too, until {view.previous_secret_until:%Y-%m-%d %H:%M}Z.")
    return ExitCode.OK


@app.command("enable")
def enable(webhook_id: WebhookArgument, *, tenant: TenantOption = "tnt_default", as_json: AsJson = False) -> int:
    """Send to a disabled webhook again; `redeliver --since` tells what it missed."""
    return _set_enabled(webhook_id, tenant, is_enabled=True, as_json=as_json)


@app.command("disable")
def disable(webhook_id: WebhookArgument, *, tenant: TenantOption = "tnt_default", as_json: AsJson = False) -> int:
    """Send a webhook nothing for now; what happens meanwhile is kept for redelivery."""
    return _set_enabled(webhook_id, tenant, is_enabled=False, as_json=as_json)


@app.command("test")
def send_test(webhook_id: WebhookArgument, *, tenant: TenantOption = "tnt_default", as_json: AsJson = False) -> int:
    """Have a `webhook.test` event sent, as any other is."""
    with _serving(tenant) as (service, scope):
        view = service.webhooks.test(webhook_id, scope)
    if as_json:
        print_document(_delivery(view))
    else:
        print_line(view.event_id)
        say(f"`nightrate webhooks deliveries {webhook_id}` shows what becomes of it.")
    return ExitCode.OK


@app.command("deliveries")
def deliveries(
    webhook_id: WebhookArgument,
    *,
    tenant: TenantOption = "tnt_default",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, the newest first.")] = 20,
    as_json: AsJson = False,
) -> int:
    """Show what became of the events of the last month."""
    with _serving(tenant) as (service, scope):
        views = service.webhooks.deliveries(webhook_id, scope, limit=limit)
    if as_json:
        print_document({"deliveries": [_delivery(view) for view in views]})
        return ExitCode.OK
    for view in views:
        trouble = "" if view.last_error is None else f"  {view.last_error}"
        tries = f"{view.tries} {'try' if view.tries == 1 else 'tries'}"
        print_line(
            f"{view.created_at:%Y-%m-%d %H:%M:%S}Z  {view.event_id}  {view.event_type}  {view.state}  {tries}{trouble}"
        )
    return ExitCode.OK


@app.command("redeliver")
def redeliver(
    webhook_id: WebhookArgument,
    *,
    tenant: TenantOption = "tnt_default",
    event: Annotated[
        str | None, typer.Option("--event", metavar="ID", help="This one, whatever came of it before.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            "--since",
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
            help="All since then (UTC) that have not arrived.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Tell one event again, or all since an instant that have not arrived; each keeps its id."""
    from pipeline.domain.errors import UsageError

    with _serving(tenant) as (service, scope):
        if event is not None and since is None:
            count = service.webhooks.redeliver(webhook_id, scope, event)
        elif since is not None and event is None:
            count = service.webhooks.redeliver_since(webhook_id, scope, since.replace(tzinfo=UTC))
        else:
            raise UsageError("say what to tell again", hint="--event evt_… or --since 2026-11-20")
    say(f"{count} {'event' if count == 1 else 'events'} will be told again.")
    if as_json:
        print_document({"events": count})
    return ExitCode.OK


@app.command("remove")
def remove(webhook_id: WebhookArgument, *, tenant: TenantOption = "tnt_default", as_json: AsJson = False) -> int:
    """Remove a webhook with its history."""
    with _serving(tenant) as (service, scope):
        service.webhooks.remove(webhook_id, scope)
    say(f"{webhook_id} is removed.")
    if as_json:
        print_document({"id": webhook_id, "removed": True})
    return ExitCode.OK


@contextmanager
def _serving(tenant: str) -> Iterator[tuple[Service, Scope]]:
    from pipeline.app.serving import service_of
    from pipeline.domain.ids import TenantId
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.ports.access import Scope

    with connected() as stack:
        yield service_of(stack), Scope(tenant_id=TenantId(tenant))


def _set_enabled(webhook_id: str, tenant: str, *, is_enabled: bool, as_json: bool) -> int:
    from pipeline.ports.webhooks import WebhookChange

    with _serving(tenant) as (service, scope):
        view = service.webhooks.change(webhook_id, scope, WebhookChange(is_enabled=is_enabled))
    _print(view, as_json=as_json)
    return ExitCode.OK


def _event_types(words: list[str] | None) -> tuple[EventType, ...]:
    from pipeline.domain.errors import UsageError
    from pipeline.domain.webhooks import ENDS, SUBSCRIBABLE

    known = {str(kind): kind for kind in SUBSCRIBABLE}
    for word in words or []:
        if word not in known:
            raise UsageError(f"{word!r} is no event", hint=f"there are {', '.join(known)}")
    return tuple(dict.fromkeys(known[word] for word in words)) if words else tuple(ENDS.values())


def _print(view: WebhookView, *, as_json: bool) -> None:
    document = _document(view)
    if as_json:
        print_document(document)
        return
    for name, value in document.items():
        if value is not None:
            print_line(f"{name:<22} {', '.join(value) if isinstance(value, list) else value}")


def _document(view: WebhookView) -> dict[str, object]:
    return {
        "id": view.webhook_id,
        "tenant_id": view.tenant_id,
        "project_id": view.project_id,
        "url": view.url,
        "description": view.description,
        "event_types": [str(kind) for kind in view.event_types],
        "standing": _standing(view),
        "created_at": view.created_at.isoformat(),
        "disabled_at": view.disabled_at and view.disabled_at.isoformat(),
        "failing_since": view.failing_since and view.failing_since.isoformat(),
        "previous_secret_until": view.previous_secret_until and view.previous_secret_until.isoformat(),
    }


def _delivery(view: DeliveryView) -> dict[str, object]:
    return {
        "event_id": view.event_id,
        "type": str(view.event_type),
        "batch_id": view.batch_id,
        "created_at": view.created_at.isoformat(),
        "status": str(view.state),
        "tries": view.tries,
        "next_at": view.next_at and view.next_at.isoformat(),
        "delivered_at": view.delivered_at and view.delivered_at.isoformat(),
        "gave_up_at": view.gave_up_at and view.gave_up_at.isoformat(),
        "last_status": view.last_status,
        "last_error": view.last_error,
    }


def _standing(view: WebhookView) -> str:
    if view.disabled_reason is not None:
        return f"disabled ({view.disabled_reason})"
    return "enabled" if view.failing_since is None else f"failing since {view.failing_since:%Y-%m-%d %H:%M}Z"
