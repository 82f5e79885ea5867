"""Own servers versus the cloud, over a horizon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from pipeline.report.calculators.fields import Kind, amount_of, count, exactly, micros, number, percent, shown
from pipeline.report.calculators.value import (
    ANNUITY_FORMULA,
    HOURS_PER_MONTH,
    RATE_FORMULA,
    annuity,
    monthly_rate,
    months_formula,
    months_until,
    present,
)

_ASSUMED: Final = "assumed; ask for an offer"
_HUNDRED: Final = Decimal(100)
_SERVER: Final = "a server of 8 x H100"
HORIZON_MONTHS_MAX: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class TcoInputs:
    """What servers cost to own, and the same ones in the cloud."""

    servers: int = count(1, "Servers", source="assumed", low=1, high=100_000)
    gpus_per_server: int = count(8, "GPUs of a server", source=_SERVER, low=1, high=64)
    horizon_months: int = count(36, "Horizon", unit="months", source="assumed", low=1, high=HORIZON_MONTHS_MAX)
    utilisation_percent: Decimal = percent("60", "Hours with work", source="assumed", low="1")
    discount_percent_per_year: Decimal = percent("8", "Discount rate", source="assumed cost of capital", high="100")
    server_price_micros: int = amount_of("280000", "Price of a server", unit="USD", source=_ASSUMED)
    depreciation_months: int = count(
        60, "Depreciated over", unit="months", source="assumed", low=1, high=HORIZON_MONTHS_MAX
    )
    resale_percent: Decimal = percent("20", "Resale at the horizon, of the price", source="assumed")
    failures_percent_per_year: Decimal = percent("5", "Repairs in a year, of the price", source="assumed")
    server_watts: int = count(10_200, "Power of a server", unit="W", source="NVIDIA DGX H100, at most", high=1_000_000)
    pue: Decimal = number(
        "1.54", "Power usage effectiveness", unit="x", source="Uptime Institute, survey of 2025", low="1", high="5"
    )
    electricity_micros_per_kwh: int = amount_of("0.12", "Electricity", unit="USD/kWh", source="assumed")
    hosting_micros_per_month: int = amount_of("2000", "Hosting, all servers", unit="USD/month", source=_ASSUMED)
    staff_micros_per_month: int = amount_of("3000", "Staff, all servers", unit="USD/month", source="assumed")
    network_micros_per_month: int = amount_of("500", "Network, all servers", unit="USD/month", source="assumed")
    on_demand_micros_per_hour: int = amount_of(
        "55.04", "Same server on demand", unit="USD/h", source="AWS p5.48xlarge, us-east-1, January 2026"
    )
    reserved_micros_per_hour: int = amount_of(
        "36.69", "Same server reserved", unit="USD/h", source="assumed: a third under the on-demand price"
    )
    spot_micros_per_hour: int = amount_of(
        "18.16", "Same server on spot", unit="USD/h", source="AWS p5.48xlarge, use1-az3"
    )
    on_demand_parts: int = count(1, "On demand", unit="parts", source="assumed", high=1000)
    reserved_parts: int = count(1, "Reserved, paid for day and night", unit="parts", source="assumed", high=1000)
    spot_parts: int = count(2, "On spot", unit="parts", source="assumed", high=1000)
    spot_lost_percent: Decimal = percent("5", "Work lost on spot and done again", source="assumed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """What was spent by the end of a month, nothing discounted, nothing sold."""

    month: int = shown(Kind.COUNT, "Month")
    own_micros: int = shown(Kind.AMOUNT, "Own, so far", "USD")
    cloud_micros: int = shown(Kind.AMOUNT, "Cloud, so far", "USD")
    book_micros: int = shown(Kind.AMOUNT, "Servers' book value", "USD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tco:
    """Both ways side by side."""

    capex_micros: int = shown(Kind.AMOUNT, "Servers bought", "USD")
    power_micros_per_month: int = shown(Kind.AMOUNT, "Power", "USD/month")
    repairs_micros_per_month: int = shown(Kind.AMOUNT, "Repairs", "USD/month")
    running_micros_per_month: int = shown(Kind.AMOUNT, "Own, running", "USD/month")
    depreciation_micros_per_month: int = shown(Kind.AMOUNT, "Own, depreciation", "USD/month")
    cloud_micros_per_month: int = shown(Kind.AMOUNT, "Cloud", "USD/month")
    resale_micros: int = shown(Kind.AMOUNT, "Resale at the horizon", "USD")
    own_total_micros: int = shown(Kind.AMOUNT, "Own, whole horizon, resale taken off", "USD")
    cloud_total_micros: int = shown(Kind.AMOUNT, "Cloud, whole horizon", "USD")
    rate_percent_per_month: Decimal = shown(Kind.NUMBER, "Discount rate of a month", "%")
    own_npv_micros: int = shown(Kind.AMOUNT, "Own, worth today", "USD")
    cloud_npv_micros: int = shown(Kind.AMOUNT, "Cloud, worth today", "USD")
    saving_npv_micros: int = shown(Kind.AMOUNT, "Saved by owning, worth today", "USD")
    own_micros_per_gpu_hour: int = shown(Kind.AMOUNT, "Own, a busy GPU-hour", "USD")
    cloud_micros_per_gpu_hour: int = shown(Kind.AMOUNT, "Cloud, a busy GPU-hour", "USD")
    break_even_month: int | None = shown(Kind.COUNT, "Month from which owning has cost less, nothing sold")
    break_even_utilisation_percent: Decimal | None = shown(
        Kind.NUMBER, "Hours with work from which owning costs less", "%"
    )
    months: tuple[Month, ...] = shown(Kind.ROWS, "Month by month", row=Month)


_PARTS: Final = "(on_demand_parts+reserved_parts+spot_parts)"
_RESERVED: Final = f"IF({_PARTS}=0,0,reserved_parts*reserved_per_hour/{_PARTS})"
_BUSY: Final = (
    f"IF({_PARTS}=0,on_demand_per_hour,(on_demand_parts*on_demand_per_hour"
    f"+spot_parts*spot_per_hour*(1+spot_lost_percent/100))/{_PARTS})"
)
FORMULAS: Final[Mapping[str, str]] = {
    "capex": "servers*server_price",
    "power_per_month": f"servers*server_watts/1000*pue*electricity_per_kwh*{HOURS_PER_MONTH}",
    "repairs_per_month": "capex*failures_percent_per_year/100/12",
    "running_per_month": "power_per_month+repairs_per_month+hosting_per_month+staff_per_month+network_per_month",
    "depreciation_per_month": "capex/depreciation_months",
    "cloud_per_month": f"servers*{HOURS_PER_MONTH}*({_RESERVED}+utilisation_percent/100*{_BUSY})",
    "resale": "capex*resale_percent/100",
    "own_total": "capex+running_per_month*horizon_months-resale",
    "cloud_total": "cloud_per_month*horizon_months",
    "rate_percent_per_month": f"({RATE_FORMULA})*100",
    "own_npv": f"capex+running_per_month*{ANNUITY_FORMULA}-resale/(1+rate_percent_per_month/100)^horizon_months",
    "cloud_npv": f"cloud_per_month*{ANNUITY_FORMULA}",
    "saving_npv": "cloud_npv-own_npv",
    "own_per_gpu_hour": f"own_total/(servers*gpus_per_server*{HOURS_PER_MONTH}*horizon_months*utilisation_percent/100)",
    "cloud_per_gpu_hour": f"cloud_total/(servers*gpus_per_server*{HOURS_PER_MONTH}*horizon_months*utilisation_percent/100)",
    "break_even_month": months_formula("capex", "(cloud_per_month-running_per_month)"),
}
ROW_FORMULAS: Final[Mapping[str, Mapping[str, str]]] = {
    "months": {
        "own": "capex+running_per_month*[month]",
        "cloud": "cloud_per_month*[month]",
        "book": "MAX(0,capex-depreciation_per_month*[month])",
    }
}


@exactly
def tco(inputs: TcoInputs) -> Tco:
    """Return what both ways cost; money is rounded once, at the end.

    Electricity is for all hours at the power given; reserved servers are paid for day and night, the others while there is work.
    """
    capex = Decimal(inputs.servers * inputs.server_price_micros)
    power = (
        Decimal(inputs.servers * inputs.server_watts)
        / 1000
        * inputs.pue
        * inputs.electricity_micros_per_kwh
        * HOURS_PER_MONTH
    )
    repairs = capex * inputs.failures_percent_per_year / _HUNDRED / 12
    fixed = inputs.hosting_micros_per_month + inputs.staff_micros_per_month + inputs.network_micros_per_month
    running = power + repairs + fixed
    reserved, busy = _cloud_prices(inputs)
    hours = inputs.servers * HOURS_PER_MONTH
    cloud = hours * (reserved + busy * inputs.utilisation_percent / _HUNDRED)
    months, rate = inputs.horizon_months, monthly_rate(inputs.discount_percent_per_year)
    resale = capex * inputs.resale_percent / _HUNDRED
    own_npv = capex + running * annuity(rate, months) - present(resale, rate, months)
    cloud_npv = cloud * annuity(rate, months)
    gpu_hours = hours * inputs.gpus_per_server * months * inputs.utilisation_percent / _HUNDRED
    return Tco(
        capex_micros=micros(capex),
        power_micros_per_month=micros(power),
        repairs_micros_per_month=micros(repairs),
        running_micros_per_month=micros(running),
        depreciation_micros_per_month=micros(capex / inputs.depreciation_months),
        cloud_micros_per_month=micros(cloud),
        resale_micros=micros(resale),
        own_total_micros=micros(capex + running * months - resale),
        cloud_total_micros=micros(cloud * months),
        rate_percent_per_month=rate * 100,
        own_npv_micros=micros(own_npv),
        cloud_npv_micros=micros(cloud_npv),
        saving_npv_micros=micros(cloud_npv - own_npv),
        own_micros_per_gpu_hour=micros((capex + running * months - resale) / gpu_hours),
        cloud_micros_per_gpu_hour=micros(cloud * months / gpu_hours),
        break_even_month=months_until(capex, cloud - running),
        break_even_utilisation_percent=_break_even(own_npv / annuity(rate, months) / hours, reserved, busy),
        months=_months(capex, running, cloud, inputs),
    )


def _months(capex: Decimal, running: Decimal, cloud: Decimal, inputs: TcoInputs) -> tuple[Month, ...]:
    return tuple(
        Month(
            month=month,
            own_micros=micros(capex + running * month),
            cloud_micros=micros(cloud * month),
            book_micros=micros(max(Decimal(0), capex - capex / inputs.depreciation_months * month)),
        )
        for month in range(inputs.horizon_months + 1)
    )


def _cloud_prices(inputs: TcoInputs) -> tuple[Decimal, Decimal]:
    """Return what a server's hour costs in micro-units: whether or not there is work, and besides where there is."""
    parts = inputs.on_demand_parts + inputs.reserved_parts + inputs.spot_parts
    if not parts:
        return Decimal(0), Decimal(inputs.on_demand_micros_per_hour)
    on_spot = inputs.spot_parts * inputs.spot_micros_per_hour * (1 + inputs.spot_lost_percent / _HUNDRED)
    on_demand = inputs.on_demand_parts * inputs.on_demand_micros_per_hour
    return Decimal(inputs.reserved_parts * inputs.reserved_micros_per_hour) / parts, (on_demand + on_spot) / parts


def _break_even(own_per_hour: Decimal, reserved: Decimal, busy: Decimal) -> Decimal | None:
    """Return the share of hours with work from which owning costs less, in today's worth; None: at no share."""
    if own_per_hour <= reserved:
        return Decimal(0)
    if not busy or own_per_hour > reserved + busy:
        return None
    return (own_per_hour - reserved) / busy * 100
