"""What a model costs on hardware: by hand, and what must hold of any inputs."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.calculators.gpus import gpus
from pipeline.report.calculators.model_cost import HardwareCost, ModelCostInputs, model_cost
from pipeline.report.calculators.offers import Offer

#: 3.60 an hour is a thousand micro-units a second.
MEASURED = Offer(
    name="measured",
    gpu="H100",
    gpus=1,
    market="on_demand",
    price_micros_per_hour=3_600_000,
    input_tokens_per_second=Decimal(10_000),
    output_tokens_per_second=Decimal(1_000),
)


def cost(offer: Offer, **inputs: object) -> HardwareCost:
    (found,) = model_cost(ModelCostInputs(offers=(offer,), **inputs)).hardware
    return found


def test_a_request_costs_the_time_that_it_takes() -> None:
    # 1,000 tokens in take 0.1 s, 200 out 0.2 s: 0.3 s at 1,000 micro-units a second, over 50 % of paid time.
    found = cost(MEASURED, utilisation_percent=Decimal(50), requests_per_month=1_000_000)

    assert found.is_measured
    assert found.cost_micros_per_thousand_requests == 600_000
    assert found.cost_micros_per_million == 500_000
    assert found.cost_micros_per_million_input == 200_000
    assert found.cost_micros_per_million_output == 2_000_000
    assert found.cost_micros_per_month == 600_000_000
    assert found.idle_micros_per_month == 300_000_000
    assert found.gpu_hours_per_month is not None
    assert round(found.gpu_hours_per_month, 6) == Decimal("166.666667")


def test_a_speed_that_nobody_measured_is_the_rooflines() -> None:
    # One H100 at all of its peak: 989e12 operations a second over 2 * 8e9 a token.
    offer = replace(MEASURED, input_tokens_per_second=Decimal(0), output_tokens_per_second=Decimal(0))
    peak = Decimal(100)
    found = cost(offer, arithmetic_percent=peak, bandwidth_percent=peak, utilisation_percent=peak, rows_together=1)

    assert not found.is_measured
    assert found.input_tokens_per_second == Decimal("61812.5")
    # One row reads 16 GB of weights and 1,100 tokens of its cache for each token that it writes.
    traffic = Decimal(16_000_000_000 + 1_100 * 131_072)
    assert found.output_tokens_per_second is not None
    assert round(found.output_tokens_per_second, 6) == round(Decimal(3_350_000_000_000) / traffic, 6)


@pytest.mark.parametrize(
    ("gpu", "billions", "bits", "gpus_per_copy"),
    [
        ("T4", "8", "16", None),  # 16 GB of weights in 14.4 GB
        ("T4", "8", "8", 1),
        ("L4", "8", "16", 1),
        ("H100", "70", "16", 2),  # 140 GB in 144 GB
        ("H100", "70", "8", 1),  # 70 GB in 72 GB
        ("A100-40GB", "70", "16", 4),  # 140 GB in 144 GB, not in 72 GB
    ],
)
def test_a_model_is_put_on_the_fewest_gpus_that_hold_it(
    gpu: str, billions: str, bits: str, gpus_per_copy: int | None
) -> None:
    offer = replace(MEASURED, gpu=gpu, gpus=1 if gpus_per_copy is None else 8, input_tokens_per_second=Decimal(0))

    found = cost(offer, parameters_billions=Decimal(billions), weight_bits=bits)

    assert found.gpus_per_copy == gpus_per_copy
    assert found.fits == (gpus_per_copy is not None)
    assert (found.cost_micros_per_million is None) == (gpus_per_copy is None)


def test_rows_run_together_as_far_as_their_cache_fits() -> None:
    # 21.6 GB of an L4 less 16 GB of weights, at 1,200 tokens of 131,072 bytes a row.
    offer = replace(MEASURED, gpu="L4", input_tokens_per_second=Decimal(0))

    assert cost(offer).rows_together == 35
    assert cost(offer, rows_together=8).rows_together == 8


def test_offers_are_ranked_and_those_that_do_not_fit_come_last() -> None:
    offers = (
        replace(MEASURED, name="does not fit", gpu="T4", price_micros_per_hour=1),
        replace(MEASURED, name="dear", price_micros_per_hour=7_200_000),
        replace(MEASURED, name="cheap"),
    )

    found = model_cost(ModelCostInputs(offers=offers))

    assert [row.name for row in found.hardware] == ["cheap", "dear", "does not fit"]
    assert found.cheapest == "cheap (on_demand)"


def test_nothing_is_cheapest_among_nothing() -> None:
    assert model_cost(ModelCostInputs()).cheapest is None


@given(
    price=st.integers(1, 10**9),
    more=st.integers(1, 10**9),
    gpu=st.sampled_from(sorted(gpus())),
    count=st.integers(1, 8),
    billions=st.integers(1, 100),
    utilisation=st.integers(1, 99),
)
def test_dearer_hardware_and_more_idling_never_make_it_cheaper(
    *, price: int, more: int, gpu: str, count: int, billions: int, utilisation: int
) -> None:
    offer = Offer(name="x", gpu=gpu, gpus=count, price_micros_per_hour=price)
    inputs = ModelCostInputs(
        parameters_billions=Decimal(billions), utilisation_percent=Decimal(utilisation), offers=(offer,)
    )

    (found,) = model_cost(inputs).hardware
    (dearer,) = model_cost(replace(inputs, offers=(replace(offer, price_micros_per_hour=price + more),))).hardware
    (busier,) = model_cost(replace(inputs, utilisation_percent=Decimal(utilisation + 1))).hardware

    if found.cost_micros_per_month is None:
        assert dearer.cost_micros_per_month is None
    else:
        assert dearer.cost_micros_per_month is not None
        assert busier.cost_micros_per_month is not None
        assert dearer.cost_micros_per_month >= found.cost_micros_per_month
        assert busier.cost_micros_per_month <= found.cost_micros_per_month


def test_every_gpu_has_its_figures_and_their_source() -> None:
    assert len(gpus()) >= 10
    for gpu in gpus().values():
        assert min(gpu.memory_gb, gpu.bandwidth_gb_per_second, gpu.tflops_16bit, gpu.watts) > 0
        assert gpu.tflops_8bit == 0 or gpu.tflops_8bit > gpu.tflops_16bit
        assert gpu.source
