"""`nightrate prices`: what things cost, who says so, and how old that is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_line, print_table, say

if TYPE_CHECKING:  # the stores are opened inside the commands
    from pipeline.config import Settings
    from pipeline.domain.costs.prices import Item, Price, PriceUnit
    from pipeline.ports.prices import PriceQuestion

#: Past them an instant is a typing error.
_YEARS: Final = range(2000, 2200)

app = typer.Typer(no_args_is_help=True, help="Prices: what holds, what providers say, and the operator's own.")

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="An instance type, storage class, region sent to, or model.")
]
ProviderOption = Annotated[str, typer.Option("--provider", help="Such as aws, gcp, azure, openai.")]
UnitOption = Annotated[
    str,
    typer.Option(
        "--unit",
        help="hour, gb_month, request, gb, input_token, cached_input_token or output_token: what it is for one of.",
    ),
]
MarketOption = Annotated[str, typer.Option("--market", help="on_demand, spot, reserved or batch.")]
RegionOption = Annotated[str | None, typer.Option("--region", help="Default: any.")]
ZoneOption = Annotated[str | None, typer.Option("--zone", help="Default: any of the region.")]
EffectiveOption = Annotated[
    str | None,
    typer.Option("--effective-at", metavar="WHEN", help="From when on: 2026-12-01, 2026-12-01T00:00Z. Default: now."),
]


@app.command("list")
def list_prices(
    *,
    instance_type: Annotated[str | None, typer.Option("--instance-type", help="Of this one alone.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of this model, storage class or the like alone.")] = None,
    unit: Annotated[
        str | None, typer.Option("--unit", help="For one of these alone. Default: hour; with --name or --all any.")
    ] = None,
    region: Annotated[str | None, typer.Option("--region", help="In this region alone.")] = None,
    is_whole: Annotated[bool, typer.Option("--all", help="Every price, a line each.")] = False,
    as_json: AsJson = False,
) -> int:
    """Show the prices that hold, where each is from, and how old it is; a line for each family unless you say which."""
    from pipeline.app.pricing import Wanted, standing
    from pipeline.domain.costs.prices import PriceUnit
    from pipeline.domain.errors import UsageError
    from pipeline.entrypoints.cli.connection import stack_settings
    from pipeline.entrypoints.cli.prices_views import SUMMARY_HEADS, price_rows, standing_document, summary_rows

    if instance_type is not None and name is not None:
        raise UsageError("--instance-type and --name both say whose price", hint="leave one out")
    settings = stack_settings()
    is_summary = not (is_whole or as_json or any((instance_type, name, unit, region)))
    if unit is not None:
        measure: PriceUnit | None = _unit(unit)
    else:
        measure = None if name is not None or is_summary or is_whole else PriceUnit.HOUR
    now = datetime.now().astimezone()
    wanted = Wanted(currency=settings.currency, name=instance_type or name, unit=measure, region=region)
    said, asked = _said(settings, now, wanted.name)
    found = standing(said, now, wanted, asked=asked)
    if as_json:
        print_document({"prices": [standing_document(each, now) for each in found]})
        return ExitCode.OK
    if not found:
        say("No such price is known. `nightrate prices refresh` asks AWS, `nightrate prices set` says any.")
        return ExitCode.OK
    if is_summary:
        print_table(SUMMARY_HEADS, summary_rows(found, now), right=SUMMARY_HEADS[4:])
        say("One by one: --instance-type, --name, --region, --unit, or --all.")
        return ExitCode.OK
    heads = ("PROVIDER", "NAME", "MARKET", "REGION", "ZONE", "PRICE", "FOR", "SOURCE", "AGE")
    print_table(heads, [row for each in found for row in price_rows(each, now)], right=("PRICE", "AGE"))
    return ExitCode.OK


@app.command("refresh")
def refresh_prices(
    *,
    region: Annotated[
        list[str] | None, typer.Option("--region", help="Ask about this region; repeatable. Default: the pools'.")
    ] = None,
    instance_type: Annotated[
        list[str] | None,
        typer.Option("--instance-type", help="Of this one; repeatable. Default: the pools', or all of the catalogue."),
    ] = None,
    max_age: Annotated[
        str, typer.Option("--max-age", metavar="AGE", help="Ask again what is older, such as 30m, 1h, 1d; 0: all.")
    ] = "1h",
    history: Annotated[
        str, typer.Option("--history", metavar="AGE", help="How far back spot prices are wanted the first time.")
    ] = "1d",
    as_json: AsJson = False,
) -> int:
    """Ask AWS for its prices (on-demand, reserved, spot by zone), and keep them."""
    from datetime import UTC, timedelta

    from infra.prices.aws import AwsPrices
    from pipeline.app.pricing import import_catalogue, questions, refresh
    from pipeline.domain.windows import parse_window
    from pipeline.entrypoints.cli.connection import connected, stack_settings
    from storage.prices import PriceRepository

    settings = stack_settings()
    asked = questions(settings, region or (), instance_type or ())
    age, back = timedelta(0) if max_age == "0" else parse_window(max_age), parse_window(history)
    with connected(settings) as stack:
        repository = PriceRepository(stack.database)
        import_catalogue(repository)
        outcome = refresh(repository, AwsPrices(), asked, now=datetime.now(UTC), max_age=age, history=back)
    for question, error in outcome.failures:
        say(f"  {question.instance_type} ({question.market}) in {question.region}: {error.message}")
    if as_json:
        failures = [
            {
                "instance_type": question.instance_type,
                "market": str(question.market),
                "region": question.region,
                "error": {"code": error.code, "message": error.message},
            }
            for question, error in outcome.failures
        ]
        counts = {"asked": outcome.asked, "still_fresh": outcome.still_fresh, "new_prices": outcome.news}
        print_document({**counts, "failures": failures})
    else:
        said = f"{outcome.news:,} new prices from {outcome.asked:,} questions"
        print_line(
            f"{said}, {outcome.still_fresh:,} answers younger than {max_age}, {len(outcome.failures):,} failures"
        )
    return ExitCode.FAILED if outcome.failures else ExitCode.OK


@app.command("set")
def set_price(  # noqa: PLR0913 -- as many options as make a price
    name: NameArgument,
    price: Annotated[str, typer.Argument(metavar="PRICE", help="Of one unit, in `currency`, such as 1.006.")],
    *,
    provider: ProviderOption = "aws",
    unit: UnitOption = "hour",
    market: MarketOption = "on_demand",
    region: RegionOption = None,
    zone: ZoneOption = None,
    effective_at: EffectiveOption = None,
    as_json: AsJson = False,
) -> int:
    """Say a price, which beats what the catalogue and the provider say."""
    from pipeline.domain.costs.prices import picos_of

    picos = picos_of(price)
    return _tell(_item(name, provider, unit, market, region, zone), picos, effective_at, as_json=as_json)


@app.command("unset")
def unset_price(
    name: NameArgument,
    *,
    provider: ProviderOption = "aws",
    unit: UnitOption = "hour",
    market: MarketOption = "on_demand",
    region: RegionOption = None,
    zone: ZoneOption = None,
    effective_at: EffectiveOption = None,
    as_json: AsJson = False,
) -> int:
    """Leave the price to the catalogue and the provider again; what was said before stays on record."""
    return _tell(_item(name, provider, unit, market, region, zone), None, effective_at, as_json=as_json)


@app.command("import")
def import_prices(*, as_json: AsJson = False) -> int:
    """Write the catalogue that this release comes with into the database, for whoever reads prices there."""
    from pipeline.app.pricing import import_catalogue
    from pipeline.domain.costs import catalogue
    from pipeline.entrypoints.cli.connection import connected
    from storage.prices import PriceRepository

    with connected() as stack:
        news = import_catalogue(PriceRepository(stack.database))
    tables = catalogue.load().tables
    if as_json:
        listed = [{"file": each.file, "as_of": f"{each.as_of:%Y-%m-%d}", "origin": each.origin} for each in tables]
        print_document({"new_prices": news, "tables": listed})
        return ExitCode.OK
    print_line(f"{news:,} new prices")
    for table in tables:
        print_line(f"  {table.as_of:%Y-%m-%d}  {table.origin}")
    return ExitCode.OK


def _tell(item: Item, picos: int | None, effective_at: str | None, *, as_json: bool) -> int:
    from datetime import UTC

    from pipeline.domain.costs.prices import Price, PriceSource
    from pipeline.entrypoints.cli.connection import connected, stack_settings
    from pipeline.entrypoints.cli.prices_views import amount_text, price_document
    from pipeline.ports.acting import COMMAND_LINE
    from storage.prices import PriceRepository

    settings, now = stack_settings(), datetime.now(UTC)
    said = Price(
        item=item,
        unit_price_picos=picos,
        currency=settings.currency,
        effective_at=now if effective_at is None else _moment(effective_at),
        source=PriceSource.OVERRIDE,
        as_of=now,
        origin=COMMAND_LINE,
    )
    with connected(settings) as stack:
        is_news = bool(PriceRepository(stack.database).add([said]))
    if as_json:
        print_document({**price_document(said, now), "is_new": is_news})
    else:
        from pipeline.entrypoints.cli.figures import moment

        what = "is left to others" if picos is None else f"costs {amount_text(said)} per {item.unit}"
        print_line(
            f"{item.provider} {item.name} ({item.market}) in {_where(item)} {what} from {moment(said.effective_at)}"
        )
        if not is_news:
            say("That was said before.")
    return ExitCode.OK


def _said(settings: Settings, now: datetime, name: str | None) -> tuple[list[Price], Mapping[PriceQuestion, datetime]]:
    """Return what the database says, and when what was asked; nothing where none is up."""
    from datetime import UTC

    from pipeline.domain.errors import NotRunningError
    from pipeline.entrypoints.cli.connection import connected
    from storage.prices import PriceRepository

    names, end_of_time = None if name is None else [name], datetime.max.replace(tzinfo=UTC)
    try:
        with connected(settings) as stack:
            repository = PriceRepository(stack.database)
            return repository.in_force(now, end_of_time, names=names), repository.last_asked(names)
    except NotRunningError:
        say("No database is up: these are the catalogue's prices alone.")
        return [], {}


def _item(name: str, provider: str, unit: str, market: str, region: str | None, zone: str | None) -> Item:
    from pipeline.domain.costs.prices import Item, Market
    from pipeline.domain.errors import UsageError

    for option, word in (("NAME", name), ("--provider", provider), ("--region", region), ("--zone", zone)):
        if word is not None and (not word.strip() or len(word) > 200 or not word.isprintable()):  # noqa: PLR2004 -- ample
            raise UsageError(f"{option}: {word!r} is no name", hint="1 to 200 printable characters")
    try:
        terms = Market(market)
    except ValueError:
        raise UsageError(f"--market: there is no {market!r}", hint=", ".join(Market)) from None
    return Item(provider=provider, name=name, unit=_unit(unit), market=terms, region=region, zone=zone)


def _unit(unit: str) -> PriceUnit:
    from pipeline.domain.costs.prices import PriceUnit
    from pipeline.domain.errors import UsageError

    try:
        return PriceUnit(unit)
    except ValueError:
        raise UsageError(f"--unit: there is no {unit!r}", hint=", ".join(PriceUnit)) from None


def _moment(text: str) -> datetime:
    from pipeline.domain.errors import UsageError

    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.year not in _YEARS:
        raise UsageError(f"--effective-at: {text!r} is no instant", hint="write 2026-12-01, or 2026-12-01T00:00+00:00")
    return at if at.tzinfo is not None else at.astimezone()


def _where(item: Item) -> str:
    return item.zone or item.region or "any region"
