"""What a model costs on a table of hardware: per token, per request, per month.

Speeds are those measured, or a roofline's: reading a prompt is bound by arithmetic, writing by memory traffic, both at
the share of their peak that is assumed. A model is put on the fewest GPUs (a power of two) that hold it with a row
beside it; what GPUs are left run copies of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from pipeline.report.calculators.fields import Kind, choice, count, exactly, micros, number, percent, rows, shown
from pipeline.report.calculators.gpus import Gpu, gpus
from pipeline.report.calculators.offers import Offer

_ASSUMED: Final = "assumed; `nightrate bench engines` measures it"
_LLAMA: Final = "Llama 3.1 8B"
_GB: Final = 10**9
_TERA: Final = 10**12
_MILLION: Final = 10**6
_HOUR: Final = 3600
_HUNDRED: Final = Decimal(100)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCostInputs:
    """A model, a workload, and what it may run on."""

    parameters_billions: Decimal = number("8", "Parameters", unit="billions", source=_LLAMA, low="0.001", high="100000")
    active_percent: Decimal = percent(
        "100", "Parameters that a token uses", source="a dense model; less for a mixture of experts", low="0.1"
    )
    weight_bits: str = choice("16", "Bits of a weight", ("16", "8", "4"), source="as published, not quantized")
    cache_bytes_per_token: int = count(
        131_072,
        "Cache of a token",
        unit="bytes",
        source=f"{_LLAMA}: 2 x 32 layers x 8 heads x 128 x 2 bytes",
        low=1,
        high=100_000_000,
    )
    rows_together: int = count(64, "Rows that run together, at most", source="assumed", low=1, high=100_000)
    input_tokens_per_request: int = count(
        1000, "Input of a request", unit="tokens", source="assumed", low=1, high=10_000_000
    )
    output_tokens_per_request: int = count(
        200, "Output of a request", unit="tokens", source="assumed", low=1, high=10_000_000
    )
    requests_per_month: int = count(1_000_000, "Requests in a month", source="assumed", high=1_000_000_000_000)
    utilisation_percent: Decimal = percent(
        "85", "Paid time that is busy", source="assumed; `nightrate show` tells yours", low="1"
    )
    arithmetic_percent: Decimal = percent("50", "Peak arithmetic reached", source=_ASSUMED, low="1")
    bandwidth_percent: Decimal = percent("60", "Peak bandwidth reached", source=_ASSUMED, low="1")
    parallel_percent: Decimal = percent("85", "Speed kept when a model is cut over GPUs", source="assumed", low="1")
    memory_kept_percent: Decimal = percent(
        "10", "Memory kept free", source="assumed: activations and the runtime", high="90"
    )
    offers: tuple[Offer, ...] = rows(Offer, "Hardware and prices", source="given, or the price catalogue")


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareCost:
    """The model on one offer; None where it does not fit."""

    name: str = shown(Kind.NAME, "Name")
    gpu: str = shown(Kind.NAME, "GPU")
    gpus: int = shown(Kind.COUNT, "GPUs")
    market: str = shown(Kind.NAME, "Market")
    price_micros_per_hour: int = shown(Kind.AMOUNT, "Price", "USD/h")
    fits: bool = shown(Kind.FLAG, "Fits")
    is_measured: bool = shown(Kind.FLAG, "Measured")
    gpus_per_copy: int | None = shown(Kind.COUNT, "GPUs a copy")
    rows_together: int | None = shown(Kind.COUNT, "Rows together")
    input_tokens_per_second: Decimal | None = shown(Kind.NUMBER, "Input", "tokens/s")
    output_tokens_per_second: Decimal | None = shown(Kind.NUMBER, "Output", "tokens/s")
    arithmetic_used_percent: Decimal | None = shown(Kind.NUMBER, "Peak arithmetic used", "%")
    cost_micros_per_million_input: int | None = shown(Kind.AMOUNT, "Input", "USD/1M")
    cost_micros_per_million_output: int | None = shown(Kind.AMOUNT, "Output", "USD/1M")
    cost_micros_per_million: int | None = shown(Kind.AMOUNT, "Blended", "USD/1M")
    cost_micros_per_thousand_requests: int | None = shown(Kind.AMOUNT, "1k requests", "USD")
    gpu_hours_per_month: Decimal | None = shown(Kind.NUMBER, "GPU-hours", "h/month")
    cost_micros_per_month: int | None = shown(Kind.AMOUNT, "Month", "USD")
    idle_micros_per_month: int | None = shown(Kind.AMOUNT, "of it idle", "USD")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCost:
    """What the model weighs, and what it costs on each offer, the cheapest first."""

    weights_gb: Decimal = shown(Kind.NUMBER, "Weights", "GB")
    cache_gb_per_row: Decimal = shown(Kind.NUMBER, "Cache of a row", "GB")
    idle_percent: Decimal = shown(Kind.NUMBER, "Paid time that is idle", "%")
    cheapest: str | None = shown(Kind.NAME, "Cheapest that fits")
    hardware: tuple[HardwareCost, ...] = shown(Kind.ROWS, "Hardware", row=HardwareCost)


FORMULAS: Final[Mapping[str, str]] = {
    "weights_gb": "parameters_billions*weight_bits/8",
    "cache_gb_per_row": "(input_tokens_per_request+output_tokens_per_request)*cache_bytes_per_token/1000000000",
    "idle_percent": "100-utilisation_percent",
}
ROW_FORMULAS: Final[Mapping[str, Mapping[str, str]]] = {
    "hardware": {
        "cost_per_million_input": "[price_per_hour]/3600/[input_tokens_per_second]*1000000/(utilisation_percent/100)",
        "cost_per_million_output": "[price_per_hour]/3600/[output_tokens_per_second]*1000000/(utilisation_percent/100)",
        "cost_per_million": "([cost_per_million_input]*input_tokens_per_request+[cost_per_million_output]*"
        "output_tokens_per_request)/(input_tokens_per_request+output_tokens_per_request)",
        "cost_per_thousand_requests": "[cost_per_million]*(input_tokens_per_request+output_tokens_per_request)/1000",
        "gpu_hours_per_month": "requests_per_month*(input_tokens_per_request/[input_tokens_per_second]+"
        "output_tokens_per_request/[output_tokens_per_second])/3600/(utilisation_percent/100)*[gpus]",
        "cost_per_month": "[cost_per_thousand_requests]*requests_per_month/1000",
        "idle_per_month": "[cost_per_month]*(1-utilisation_percent/100)",
    }
}


@exactly
def model_cost(inputs: ModelCostInputs) -> ModelCost:
    """Return what the model costs on each offer; money is rounded once, at the end."""
    weights_gb = inputs.parameters_billions * int(inputs.weight_bits) / 8
    found = [_on(inputs, offer) for offer in inputs.offers]
    found.sort(
        key=lambda row: (row.cost_micros_per_million is None, row.cost_micros_per_million or 0, row.name, row.market)
    )
    return ModelCost(
        weights_gb=weights_gb,
        cache_gb_per_row=_row_bytes(inputs) / _GB,
        idle_percent=100 - inputs.utilisation_percent,
        cheapest=next((f"{row.name} ({row.market})" for row in found if row.fits), None),
        hardware=tuple(found),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """How a model lies on an instance."""

    gpus_per_copy: int
    rows_together: int


def _row_bytes(inputs: ModelCostInputs) -> Decimal:
    tokens = inputs.input_tokens_per_request + inputs.output_tokens_per_request
    return Decimal(tokens * inputs.cache_bytes_per_token)


def _layout(inputs: ModelCostInputs, gpu: Gpu, gpus_there: int) -> _Layout | None:
    weights = inputs.parameters_billions * _GB * int(inputs.weight_bits) / 8
    usable = gpu.memory_gb * _GB * (1 - inputs.memory_kept_percent / _HUNDRED)
    each = 1
    while each <= gpus_there:
        rows_fit = int((each * usable - weights) // _row_bytes(inputs)) if each * usable > weights else 0
        if rows_fit:
            return _Layout(gpus_per_copy=each, rows_together=min(rows_fit, inputs.rows_together))
        each *= 2
    return None


def _speeds(inputs: ModelCostInputs, gpu: Gpu, layout: _Layout, copies: int) -> tuple[Decimal, Decimal]:
    """Return tokens/s of all copies together: reading only, and writing only."""
    bits = int(inputs.weight_bits)
    kept = inputs.parallel_percent / _HUNDRED if layout.gpus_per_copy > 1 else Decimal(1)
    operations_a_token = 2 * inputs.parameters_billions * _GB * inputs.active_percent / _HUNDRED
    arithmetic = layout.gpus_per_copy * gpu.tflops(bits) * _TERA * inputs.arithmetic_percent / _HUNDRED * kept
    bandwidth = layout.gpus_per_copy * gpu.bandwidth_gb_per_second * _GB * inputs.bandwidth_percent / _HUNDRED * kept
    context = inputs.input_tokens_per_request + Decimal(inputs.output_tokens_per_request) / 2
    # Many rows together touch every weight, a mixture's experts too.
    traffic = (
        inputs.parameters_billions * _GB * bits / 8 + layout.rows_together * context * inputs.cache_bytes_per_token
    )
    step_seconds = max(traffic / bandwidth, layout.rows_together * operations_a_token / arithmetic)
    return copies * arithmetic / operations_a_token, copies * layout.rows_together / step_seconds


def _on(inputs: ModelCostInputs, offer: Offer) -> HardwareCost:
    gpu = gpus()[offer.gpu]
    layout = _layout(inputs, gpu, offer.gpus)
    if layout is None:
        return _without(offer)
    copies = offer.gpus // layout.gpus_per_copy
    reading, writing = (
        (offer.input_tokens_per_second, offer.output_tokens_per_second)
        if offer.is_measured
        else _speeds(inputs, gpu, layout, copies)
    )
    busy = inputs.utilisation_percent / _HUNDRED
    tokens_in, tokens_out = inputs.input_tokens_per_request, inputs.output_tokens_per_request
    request_seconds = tokens_in / reading + tokens_out / writing
    second = Decimal(offer.price_micros_per_hour) / _HOUR / busy
    request, month = second * request_seconds, second * request_seconds * inputs.requests_per_month
    operations = 2 * inputs.parameters_billions * _GB * inputs.active_percent / _HUNDRED * (tokens_in + tokens_out)
    peak = offer.gpus * gpu.tflops(int(inputs.weight_bits)) * _TERA
    return HardwareCost(
        name=offer.name,
        gpu=offer.gpu,
        gpus=offer.gpus,
        market=offer.market,
        price_micros_per_hour=offer.price_micros_per_hour,
        fits=True,
        is_measured=offer.is_measured,
        gpus_per_copy=layout.gpus_per_copy,
        rows_together=layout.rows_together,
        input_tokens_per_second=reading,
        output_tokens_per_second=writing,
        arithmetic_used_percent=_HUNDRED * operations / request_seconds / peak,
        cost_micros_per_million_input=micros(second * _MILLION / reading),
        cost_micros_per_million_output=micros(second * _MILLION / writing),
        cost_micros_per_million=micros(request / (tokens_in + tokens_out) * _MILLION),
        cost_micros_per_thousand_requests=micros(request * 1000),
        gpu_hours_per_month=inputs.requests_per_month * request_seconds / _HOUR / busy * offer.gpus,
        cost_micros_per_month=micros(month),
        idle_micros_per_month=micros(month * (1 - busy)),
    )


def _without(offer: Offer) -> HardwareCost:
    return HardwareCost(
        name=offer.name,
        gpu=offer.gpu,
        gpus=offer.gpus,
        market=offer.market,
        price_micros_per_hour=offer.price_micros_per_hour,
        fits=False,
        is_measured=offer.is_measured,
        gpus_per_copy=None,
        rows_together=None,
        input_tokens_per_second=None,
        output_tokens_per_second=None,
        arithmetic_used_percent=None,
        cost_micros_per_million_input=None,
        cost_micros_per_million_output=None,
        cost_micros_per_million=None,
        cost_micros_per_thousand_requests=None,
        gpu_hours_per_month=None,
        cost_micros_per_month=None,
        idle_micros_per_month=None,
    )
