"""Scenes of a fleet in files: pools and offers as a platform engineer may want to try them, in TOML.

    [settings]                       # all optional; see `Scene` for more
    interval_seconds = 60

    [pools.gpu]
    boot_seconds = 90                # means; what each start takes is spread around them
    load_seconds = 210
    workers_max = 32

    [pools.gpu.models.small]         # what a worker takes for rows of a model; "*": any that has no own
    input_tokens_per_second = 20000
    output_tokens_per_second = 2500

    [[pools.gpu.offers]]
    name = "spot-a"                  # market is "spot" or "on_demand"
    market = "spot"
    provider = "aws"                 # by whose rules it is billed: aws, gcp, azure; others: what was used
    instance_type = "g5.xlarge"
    region = "us-east-1"
    zone = "use1-az4"
    price = 0.4                      # an hour; without it the catalogue's
    workers_max = 8                  # our quota
    capacity = {trace = "capacity.csv", column = "us-east-1a", seconds = 600}   # or
    # capacity = {workers = 16, run_hours = 6, outage_hours = 2}                # made up: on average

A trace is CSV with a head; each line is a look, `seconds` after the one before. It is begun again when it ends.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final, NoReturn

from pipeline.domain.costs.prices import Market
from pipeline.domain.errors import NotFoundError, UsageError
from pipeline.domain.tiers import Tier
from scheduler.simulate.capacity import Capacity, made_up_capacity
from scheduler.simulate.fleet import Speed
from scheduler.simulate.scene import Delay, ElasticPool, Offering, Scene

#: What an hour costs on some terms, in micro-units: (market, provider, instance type, region, zone); None: not known.
PriceOf = Callable[[Market, str | None, str | None, str | None, str | None], int | None]

_SETTINGS: Final = tuple(
    field.name for field in fields(Scene) if field.name.endswith("_seconds") or field.name.startswith("spend")
)
_POOL: Final = (
    "boot_seconds",
    "load_seconds",
    "start_spread",
    "workers_min",
    "workers_max",
    "tiers",
    "models",
    "offers",
)
_SPEED: Final = ("row_seconds", "input_tokens_per_second", "output_tokens_per_second")
_OFFER: Final = (
    "name",
    "market",
    "provider",
    "instance_type",
    "region",
    "zone",
    "price",
    "on_demand_price",
    "workers_max",
    "capacity",
)
_ANY_MODEL: Final = "*"
_MICROS: Final = 1_000_000
_LARGEST: Final = 1e9


def read_scene(path: Path, *, models: frozenset[str], until_seconds: float, price_of: PriceOf, seed: int) -> Scene:
    """Return the scene of a file.

    Raises:
        NotFoundError: there is no such file, or no such trace.
        UsageError: the file says something that no scene has; the message names what and where.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}") from None
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="name a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path.name} is not TOML: {error}", hint="see examples/fleet/pools.toml") from None
    whole = _Table(told, path.name, ("settings", "pools"))
    pools = whole.table("pools")
    if not pools.told:
        raise UsageError(f"{path.name} has no pools", hint="write [pools.NAME]; see examples/fleet/pools.toml")
    reader = _Reader(path.parent, models, until_seconds, price_of, seed)
    made = tuple(reader.pool(name, pools.table(name, _POOL)) for name in pools.told)
    names = [each.name for pool in made for each in pool.offerings]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{path.name} has two offers {name!r}", hint="names of offers are unique")
    settings = whole.table("settings", _SETTINGS)
    return replace(Scene(pools=made), **_settings_of(settings))


def _settings_of(settings: _Table) -> dict[str, Any]:
    found: dict[str, Any] = {name: settings.number(name) for name in settings.told}
    for name in ("interval_seconds", "cycle_seconds", "lifetime_seconds"):
        if found.get(name) == 0:
            settings.refuse(name, "is 0", "write more than 0")
    if "spend_micros_per_hour_max" in found:
        found["spend_micros_per_hour_max"] = round(found["spend_micros_per_hour_max"])
    return found


class _Reader:
    def __init__(
        self, folder: Path, models: frozenset[str], until_seconds: float, price_of: PriceOf, seed: int
    ) -> None:
        self._folder = folder
        self._models = models
        self._until = until_seconds
        self._price_of = price_of
        self._seed = seed

    def pool(self, name: str, told: _Table) -> ElasticPool:
        """Return one pool."""
        spread = told.number("start_spread", 0.2, most=2.0)
        tiers = told.told.get("tiers", [tier.value for tier in Tier])
        if not isinstance(tiers, list) or not tiers or any(tier not in list(Tier) for tier in tiers):
            told.refuse("tiers", f"{tiers!r} are not tiers", "write a list of " + ", ".join(Tier))
        offers = told.told.get("offers", [])
        if not isinstance(offers, list) or not offers:
            told.refuse("offers", "are missing", f"write [[pools.{name}.offers]]")
        return ElasticPool(
            name=name,
            offerings=tuple(
                self._offer(name, _Table(each, f"{told.where}.offers[{place}]", _OFFER))
                for place, each in enumerate(offers)
            ),
            speeds=self._speeds(told.table("models")),
            boot=Delay(mean_seconds=told.number("boot_seconds", 120.0), spread=spread),
            load=Delay(mean_seconds=told.number("load_seconds", 180.0), spread=spread),
            workers_min=told.whole("workers_min") or 0,
            workers_max=told.whole("workers_max"),
            tiers=frozenset(Tier(tier) for tier in tiers),
        )

    def _speeds(self, told: _Table) -> dict[str, Speed]:
        known = {name: _speed_of(told.table(name, _SPEED)) for name in told.told}
        if not known:
            told.refuse("models", "are missing", f"write [{told.where}.{_ANY_MODEL!r}] with tokens a second")
        found = {model: speed for model, speed in known.items() if model != _ANY_MODEL}
        if _ANY_MODEL in known:
            found = {model: found.get(model, known[_ANY_MODEL]) for model in sorted({*self._models, *found})}
        return found

    def _offer(self, pool: str, told: _Table) -> Offering:
        market = told.text("market") or Market.ON_DEMAND.value
        if market not in {Market.SPOT, Market.ON_DEMAND}:
            told.refuse("market", f"{market!r} is not to be had", "write spot or on_demand")
        texts = {name: told.text(name) for name in ("provider", "instance_type", "region", "zone")}
        rate = self._rate(told, "price", Market(market), texts)
        if rate is None:
            told.refuse("price", "is missing, and the catalogue has none", "write what an hour costs, such as 1.006")
        name = told.text("name")
        if name is None:
            told.refuse("name", "is missing", "write what tables call it")
        steady = self._rate(told, "on_demand_price", Market.ON_DEMAND, texts)
        return Offering(
            name=name,
            pool=pool,
            market=Market(market),
            rate_micros_per_hour=rate,
            on_demand_micros_per_hour=rate if steady is None or market == Market.ON_DEMAND else steady,
            workers_max=told.whole("workers_max"),
            capacity=self._capacity(name, told.table("capacity")) if "capacity" in told.told else None,
            **texts,
        )

    def _rate(self, told: _Table, name: str, market: Market, texts: Mapping[str, str | None]) -> int | None:
        if name in told.told:
            return round(told.number(name) * _MICROS)
        return self._price_of(market, texts["provider"], texts["instance_type"], texts["region"], texts["zone"])

    def _capacity(self, offer: str, told: _Table) -> Capacity:
        if "trace" in told.told:
            return self._recorded(_Table(told.told, told.where, ("trace", "column", "seconds", "workers")))
        made = _Table(told.told, told.where, ("workers", "run_hours", "outage_hours"))
        return made_up_capacity(
            workers=max(1, made.whole("workers") or 16),
            run_hours=max(1 / 60, made.number("run_hours", 6.0)),
            outage_hours=max(1 / 60, made.number("outage_hours", 2.0)),
            until_seconds=self._until,
            seed=f"{self._seed} {offer}",
        )

    def _recorded(self, told: _Table) -> Capacity:
        path = self._folder / (told.text("trace") or "")
        try:
            with path.open(encoding="utf-8", newline="") as lines:
                rows = list(csv.DictReader(lines))
        except (OSError, UnicodeDecodeError) as error:
            raise NotFoundError(f"{told.where}: {path} cannot be read: {error}") from None
        column = told.text("column") or "capacity"
        if not rows or column not in rows[0]:
            told.refuse("column", f"{column!r} is not in {path.name}", "it has " + ", ".join(rows[0] if rows else ()))
        # Where a trace tells only whether any were there: how many that stands for.
        times = told.whole("workers") or 1
        try:
            counts = [round(float(row[column] or 0)) * times for row in rows]
        except ValueError as error:
            told.refuse("column", f"has something else than numbers: {error}", "write one count on each line")
        if min(counts) < 0:
            told.refuse("column", "has a count below 0", "write how many machines could be had")
        seconds = told.number("seconds", 600.0)
        return Capacity.tiled(counts, tick_seconds=max(1.0, seconds), until_seconds=self._until)


def _speed_of(told: _Table) -> Speed:
    made = {name: told.number(name) for name in told.told}
    for name in _SPEED[1:]:
        if made.get(name) == 0:
            told.refuse(name, "is 0", "write more than 0")
    return Speed(**made)


class _Table:
    """A table of the file, checked name by name."""

    def __init__(self, told: Any, where: str, known: tuple[str, ...] | None = None) -> None:  # noqa: ANN401 -- whatever TOML has
        if not isinstance(told, dict):
            raise UsageError(f"{where} is not a table", hint="see examples/fleet/pools.toml")
        self.told: Mapping[str, Any] = told
        self.where = where
        unknown = [name for name in told if known is not None and name not in known]
        if unknown:
            self.refuse(unknown[0], "is unknown", "known are " + ", ".join(known or ()))

    def table(self, name: str, known: tuple[str, ...] | None = None) -> _Table:
        return _Table(self.told.get(name, {}), f"{self.where}.{name}", known)

    def text(self, name: str) -> str | None:
        value = self.told.get(name)
        if value is not None and (not isinstance(value, str) or not value):
            self.refuse(name, f"{value!r} is not a name", "write some text")
        return value

    def number(self, name: str, default: float = 0.0, *, most: float = _LARGEST) -> float:
        value = self.told.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            self.refuse(name, f"{value!r} is not a number from 0 to {most:g}", "write one without quotes")
        return float(value)

    def whole(self, name: str) -> int | None:
        if name not in self.told:
            return None
        found = self.number(name, most=1e6)
        if found != int(found):
            self.refuse(name, f"{found:g} is not a whole number", "write 0 or more")
        return int(found)

    def refuse(self, name: str, problem: str, accepted: str) -> NoReturn:
        raise UsageError(f"{self.where}: {name!r} {problem}", hint=accepted)
