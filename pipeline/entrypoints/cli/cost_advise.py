"""`nightrate cost advise`: what would save money, from what was used lately."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_line, say

if TYPE_CHECKING:  # the stores are imported by the command that opens them
    from pipeline.app.advising import Advice
    from pipeline.ports.access import Scope


def advise(
    *,
    days: Annotated[int, typer.Option("--days", min=1, max=90, help="How far back to look.")] = 30,
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="ID", help="Only what one tenant can do. Default: everything.")
    ] = None,
    reserved_discount: Annotated[
        float | None,
        typer.Option(
            "--reserved-discount", min=0, max=100, help="Percent that a commitment takes off your on-demand price."
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Say what would save money, the most first, with the numbers it rests on and the command that would do it."""
    from pipeline.app.advising import advice, advice_document
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.cost_options import check_tenant

    with connected() as stack:
        check_tenant(stack, tenant)
        found = advice(stack, _scope(tenant), days=days, reserved_discount_percent=reserved_discount)
    if as_json:
        print_document(advice_document(found))
        return ExitCode.OK
    _print(found, days)
    return ExitCode.OK


def _scope(tenant: str | None) -> Scope | None:
    from pipeline.domain.ids import TenantId
    from pipeline.ports.access import Scope

    return None if tenant is None else Scope(tenant_id=TenantId(tenant))


def _print(found: Advice, days: int) -> None:
    from pipeline.entrypoints.cli.figures import money

    currency = found.usage.currency
    if not found.suggestions:
        say(f"Nothing that was used in the last {days} days gives reason for a suggestion.")
        return
    saving = sum(each.saving_micros_per_month for each in found.suggestions)
    print_line(f"{money(saving, currency)} of {money(found.spent_micros_per_month, currency)} a month could be saved:")
    for each in found.suggestions:
        worth = money(each.saving_micros_per_month, currency)
        alone = each.alone_micros_per_month
        rest = "" if alone == each.saving_micros_per_month else f" ({money(alone, currency)} if done alone)"
        print_line(f"\n{each.rank}. {worth} a month{rest}, confidence {each.confidence}: {each.subject}")
        print_line(f"   {each.sentence}")
        print_line(f"   {', '.join(f'{name} {value}' for name, value in each.evidence.items())}")
        print_line(f"   $ {each.command}")
