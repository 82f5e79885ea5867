"""`nightrate budgets`: what tenants and their projects may be charged, and what is left of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_line, say

if TYPE_CHECKING:  # settings are read inside the commands
    from pipeline.domain.costs.budgets import BudgetStanding
    from pipeline.domain.tiers import Tier
    from storage.budgets import BudgetRepository

app = typer.Typer(no_args_is_help=True, help="Budgets: what tenants and projects may be charged, and what is left.")

TenantOption = Annotated[str, typer.Option("--tenant", metavar="ID", help="Whose budget it is.")]
BudgetArgument = Annotated[str, typer.Argument(metavar="ID", help="As `nightrate budgets list` shows it.")]
AmountArgument = Annotated[
    str, typer.Argument(metavar="AMOUNT", help="Such as 250.00, in the installation's currency.")
]


@app.command("set")
def set_budget(
    amount: AmountArgument,
    *,
    tenant: TenantOption = "tnt_default",
    project: Annotated[str | None, typer.Option("--project", metavar="ID", help="Only of this project.")] = None,
    total: Annotated[
        bool, typer.Option("--total", help="For all time. Default: for each calendar month (UTC).")
    ] = False,
    alert: Annotated[
        list[float] | None,
        typer.Option(
            "--alert", help="A share to tell webhooks of, such as 0.8; may be repeated. Default: 0.5, 0.8, 1."
        ),
    ] = None,
    core: Annotated[
        list[str] | None,
        typer.Option(
            "--core", metavar="TIER", help="A tier that stops last; may be repeated. Default: urgent, standard."
        ),
    ] = None,
    core_share: Annotated[
        float,
        typer.Option("--core-share", help="From this share on only core tiers go on; 1: no tier is kept anything for."),
    ] = 0.9,
    as_json: AsJson = False,
) -> int:
    """Limit what may be charged; a scope has one budget for each period, which this makes or replaces."""
    from pipeline.app.budgets import ppm_of_share
    from pipeline.domain.costs.budgets import (
        DEFAULT_ALERT_SHARES_PPM,
        DEFAULT_CORE_TIERS,
        BudgetPeriod,
        BudgetScope,
        BudgetTerms,
    )
    from pipeline.domain.ids import ProjectId, TenantId, new_budget_id
    from pipeline.domain.money import micros_of
    from pipeline.ports.budgets import BudgetDraft

    for share in (*(alert or ()), core_share):
        _check_share(share)
    draft = BudgetDraft(
        budget_id=new_budget_id(),
        scope=BudgetScope(tenant_id=TenantId(tenant), project_id=None if project is None else ProjectId(project)),
        period=BudgetPeriod.TOTAL if total else BudgetPeriod.MONTH,
        terms=BudgetTerms(
            amount_micros=micros_of(amount),
            alert_shares_ppm=tuple(sorted({ppm_of_share(share) for share in alert}))
            if alert
            else DEFAULT_ALERT_SHARES_PPM,
            core_tiers=frozenset(map(_tier, core)) if core else DEFAULT_CORE_TIERS,
            core_share_ppm=ppm_of_share(core_share),
        ),
    )
    with _budgets() as (budgets, currency):
        return _print(budgets.set(draft), currency, as_json=as_json)


@app.command("list")
def list_budgets(
    *,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="ID", help="Only of this tenant.")] = None,
    as_json: AsJson = False,
) -> int:
    """Show budgets, each with what is spent, reserved and left in its current period."""
    from pipeline.app.budgets import budget_document
    from pipeline.domain.ids import TenantId
    from pipeline.ports.access import Scope

    with _budgets() as (budgets, currency):
        found = budgets.list(None if tenant is None else Scope(tenant_id=TenantId(tenant)))
    if as_json:
        documents = [{"tenant_id": each.scope.tenant_id, **budget_document(each, currency)} for each in found]
        print_document({"budgets": documents})
        return ExitCode.OK
    for each in found:
        print_line(_line(each, currency))
    if not found:
        say("There are no budgets; `nightrate budgets set` makes one.")
    return ExitCode.OK


@app.command("show")
def show(budget: BudgetArgument, *, as_json: AsJson = False) -> int:
    """Show a budget, what is left of it, and what was told of it in its current period."""
    with _budgets() as (budgets, currency):
        return _print(_found(budgets, budget), currency, as_json=as_json)


@app.command("top-up")
def top_up(budget: BudgetArgument, amount: AmountArgument, *, as_json: AsJson = False) -> int:
    """Add to a budget for its current period; what waited for it goes on."""
    from pipeline.domain.ids import new_top_up_id
    from pipeline.domain.money import micros_of
    from pipeline.ports.access import Scope

    with _budgets() as (budgets, currency):
        scope = Scope(tenant_id=_found(budgets, budget).scope.tenant_id)
        topped = budgets.top_up(budget, scope, top_up_id=new_top_up_id(), micros=micros_of(amount))
        return _print(topped, currency, as_json=as_json)


@app.command("remove")
def remove(budget: BudgetArgument) -> int:
    """Lift a limit; what waited for it goes on."""
    from pipeline.ports.access import Scope

    with _budgets() as (budgets, _currency):
        budgets.remove(budget, Scope(tenant_id=_found(budgets, budget).scope.tenant_id))
    say(f"{budget} is removed.")
    return ExitCode.OK


@contextmanager
def _budgets() -> Iterator[tuple[BudgetRepository, str]]:
    from pipeline.app.serving import service_of
    from pipeline.entrypoints.cli.connection import connected

    with connected() as stack:
        yield service_of(stack).budgets, stack.settings.currency


def _found(budgets: BudgetRepository, budget_id: str) -> BudgetStanding:
    from pipeline.domain.errors import NotFoundError

    for each in budgets.list():
        if each.budget_id == budget_id:
            return each
    raise NotFoundError(f"there is no budget {budget_id}", hint="`nightrate budgets list` shows them")


def _check_share(share: float) -> None:
    from pipeline.domain.errors import UsageError

    if not 0 < share <= 1:
        raise UsageError(f"{share:g} is no share of a budget", hint="write a number above 0 and at most 1, such as 0.8")


def _tier(word: str) -> Tier:
    from pipeline.domain.errors import UsageError
    from pipeline.domain.tiers import Tier

    try:
        return Tier(word)
    except ValueError:
        raise UsageError(f"{word!r} is no tier", hint=f"there are {', '.join(Tier)}") from None


def _print(standing: BudgetStanding, currency: str, *, as_json: bool) -> int:
    from pipeline.app.budgets import budget_document, share_of
    from pipeline.domain.costs.budgets import BudgetMark

    if as_json:
        print_document({"tenant_id": standing.scope.tenant_id, **budget_document(standing, currency)})
        return ExitCode.OK
    print_line(_line(standing, currency))
    core = " and ".join(standing.terms.core) or "no tier"
    print_line(f"  from {share_of(standing.terms.core_share_ppm):.0%} on only {core}")
    sentences = {
        BudgetMark.SHARE: "{share:.0%} is spent",
        BudgetMark.NON_CORE_PAUSED: f"all but {core} wait, from {{share:.0%}} on",
        BudgetMark.REACHED: "nothing new starts: it pays for no other row",
    }
    for mark, share in sorted(standing.told):
        print_line(f"  told: {sentences[mark].format(share=share_of(share))}")
    return ExitCode.OK


def _line(standing: BudgetStanding, currency: str) -> str:
    from pipeline.domain.costs.budgets import BudgetPeriod
    from pipeline.domain.figures import money

    whose = standing.scope.project_id or standing.scope.tenant_id
    is_month = standing.period is BudgetPeriod.MONTH
    when = f"in {standing.period_start:%Y-%m}" if is_month else "in all"
    added = f" ({money(standing.added_micros, currency)} of it added)" if standing.added_micros else ""
    return (
        f"{standing.budget_id}  {whose}  {when}: {money(standing.spent_micros, currency)} of "
        f"{money(standing.limit_micros, currency)}{added} spent, {money(standing.reserved_micros, currency)} reserved, "
        f"{money(standing.left_micros, currency)} left"
    )
