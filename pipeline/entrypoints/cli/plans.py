"""`nightrate plans`: what tenants may have, and what is left of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_line, say

if TYPE_CHECKING:  # settings are read inside the commands
    from pipeline.app.headroom import Headroom
    from pipeline.domain.plans import Plan

app = typer.Typer(no_args_is_help=True, help="Plans: the price list, who has which, and what is left.")

TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="Id of a tenant, such as tnt_default.")]


@app.command("list")
def list_plans(*, as_json: AsJson = False) -> int:
    """Show the price list: plans built in, and those of nightrate.toml."""
    from pipeline.config import load_settings

    book = load_settings().plan_book
    if as_json:
        print_document({"plans": [plan_document(plan) for plan in book.plans.values()]})
        return ExitCode.OK
    for number, plan in enumerate(book.plans.values()):
        if number:
            print_line("")
        print_line(plan.name)
        for name, value in plan_document(plan).items():
            if name != "name":
                print_line(f"  {name.ljust(22)}{_written(value)}")
    return ExitCode.OK


@app.command("prices")
def list_prices(*, as_json: AsJson = False) -> int:
    """Show what is charged: by tier, by plan, by the hour, by how busy the fleet is, and for tokens."""
    from pipeline.config import load_settings
    from pipeline.domain.costs.tariffs import tariff_document

    settings = load_settings()
    document = tariff_document(settings.plan_book.tariff) | {"currency": settings.currency}
    plans = settings.plan_book.plans.values()
    document["plans"] = {plan.name: plan_document(plan)["price_multiplier"] for plan in plans}
    if as_json:
        print_document(document)
        return ExitCode.OK
    for name, value in document.items():
        if isinstance(value, dict):
            print_line(name)
            for key, each in value.items():
                print_line(f"  {str(key).ljust(22)}{_told(each)}")
        elif isinstance(value, list):
            print_line(name)
            for each in value:
                print_line(f"  {_told(each)}")
        else:
            print_line(f"{name.ljust(24)}{_told(value)}")
    return ExitCode.OK


@app.command("set")
def set_plan(
    tenant: TenantArgument,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="As `nightrate plans list` names it.")],
    *,
    as_json: AsJson = False,
) -> int:
    """Give a tenant another plan, for all that it asks for from now on."""
    from pipeline.app.serving import service_of
    from pipeline.domain.ids import TenantId
    from pipeline.entrypoints.cli.connection import connected

    with connected() as stack:
        service_of(stack).quotas.set_plan(TenantId(tenant), plan)
        terms = stack.settings.plan_book.tenants.get(TenantId(tenant))
    say(f"{tenant} has the plan '{plan}'.")
    if terms is not None and terms.plan not in {None, plan}:
        say(f"But nightrate.toml gives it '{terms.plan}', which holds as long as it is there.")
    if as_json:
        print_document({"tenant_id": tenant, "plan": plan})
    return ExitCode.OK


@app.command("show")
def show(tenant: TenantArgument = "tnt_default", *, as_json: AsJson = False) -> int:
    """Show a tenant's plan, what it has taken of it, and what is left."""
    from pipeline.app.headroom import headrooms
    from pipeline.app.serving import service_of
    from pipeline.domain.ids import TenantId
    from pipeline.entrypoints.cli.connection import connected

    with connected() as stack:
        view = service_of(stack).quotas.see(TenantId(tenant))
    # How far rates are used is the API's to say: it is over within the minute.
    rows = headrooms(view, {})
    if as_json:
        document = {"tenant_id": view.tenant_id, "plan": plan_document(view.plan)}
        print_document({**document, "limits": [_document(row) for row in rows]})
        return ExitCode.OK
    print_line(f"{view.tenant_id} has the plan '{view.plan.name}': {', '.join(view.plan.tiers)}.")
    for row in rows:
        name = row.name if row.model is None else f"{row.name} of {row.model}"
        print_line(f"  {name.ljust(34)}{_standing(row)}")
    return ExitCode.OK


def plan_document(plan: Plan) -> dict[str, object]:
    """Return a plan with all its limits; None: as much as one likes."""
    from dataclasses import asdict

    from pipeline.domain.money import amount

    document = {**asdict(plan), "tier_ceiling": str(plan.tier_ceiling)}
    return document | {"price_multiplier": amount(document.pop("price_ppm"))}


def _document(row: Headroom) -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(row), "resets_at": row.resets_at and row.resets_at.isoformat()}


def _standing(row: Headroom) -> str:
    limit = "unlimited" if row.limit is None else f"of {row.limit:,}"
    used = "" if row.used is None else f"{row.used:,} "
    until = "" if row.resets_at is None else f", until {row.resets_at:%Y-%m-%d %H:%M}Z"
    return f"{used}{limit}{until}"


def _told(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return "-" if value is None else str(value)


def _written(value: object) -> str:
    if value is None:
        return "unlimited"
    return f"{value:,}" if isinstance(value, int) else str(value)
