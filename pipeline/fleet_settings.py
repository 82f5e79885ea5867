"""`[fleet]` in nightrate.toml: which pools the scheduler fills, where their workers are rented, and within which limits."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.domain.costs.prices import Market
from pipeline.domain.money import MICROS_PER_UNIT
from pipeline.domain.tiers import Tier

_POOL: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"
_WORD: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_Word = Annotated[str, Field(pattern=_WORD)]
_Command = Annotated[list[str], Field(min_length=1)]
_Seconds = Annotated[float, Field(gt=0, le=31_536_000)]

#: What is built in to rent from; the others are tables of `[fleet.scripts]`.
BUILT_IN_PROVIDERS: Final = ("local", "ec2", "kubernetes", "outside")


class Watch(StrEnum):
    """Whose word workers wait for that their machine is taken."""

    AWS = "aws"
    GCP = "gcp"
    AZURE = "azure"
    KUBERNETES = "kubernetes"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OfferSettings(_Table):
    """One way to rent a worker of a pool. What it runs on and costs is said by `[rate_card.pools]`."""

    provider: _Word = Field(
        description="`local` (processes on the scheduler's machine), `ec2`, `kubernetes`, `outside` (something else starts as "
        "many as the view nightrate.workers_wanted says, such as KEDA), or the name of a table of [fleet.scripts]."
    )
    market: Literal["spot", "on_demand"] = "on_demand"
    zone: _Word | None = Field(default=None, description="Default: the pool's.")
    instance_type: _Word | None = Field(
        default=None, description="Default: the pool's. Of the same speed as the others."
    )
    workers_max: Annotated[int, Field(ge=0, le=100_000)] | None = Field(default=None, description="At once, here.")


class SpeedSettings(_Table):
    """Tokens a second that a worker reads and writes, of a model that it was not measured with yet."""

    input_tokens_per_second: Annotated[float, Field(gt=0)]
    output_tokens_per_second: Annotated[float, Field(gt=0)]


class FleetPoolSettings(_Table):
    """A pool that the scheduler fills."""

    offers: Annotated[tuple[OfferSettings, ...], Field(min_length=1)]
    workers_min: Annotated[int, Field(ge=0, le=100_000)] = Field(default=0, description="Kept warm, work or none.")
    workers_max: Annotated[int, Field(ge=0, le=100_000)] | None = Field(
        default=None, description="At once, of all offers."
    )
    tiers: tuple[Tier, ...] = Field(default=tuple(Tier), description="Whose rows it may run.")
    models: tuple[str, ...] | None = Field(
        default=None, description="What its workers serve, until one says so itself. Default: every model known here."
    )
    speeds: dict[str, SpeedSettings] = Field(default_factory=dict, description="By model, until measured.")
    start_seconds: _Seconds = Field(default=300.0, description="From a request until a worker works, until measured.")

    @model_validator(mode="after")
    def _make_sense(self) -> FleetPoolSettings:
        if self.workers_max is not None and self.workers_min > self.workers_max:
            raise ValueError(f"workers_min is {self.workers_min} and workers_max {self.workers_max}")
        places = [(offer.provider, offer.market, offer.zone, offer.instance_type) for offer in self.offers]
        if len(set(places)) < len(places):
            raise ValueError("two offers are the same: provider, market, zone and instance_type tell them apart")
        if len({offer.provider == "outside" for offer in self.offers}) > 1 or (
            self.offers[0].provider == "outside" and len(self.offers) > 1
        ):
            raise ValueError("a pool whose workers something outside starts has that offer alone")
        return self


_Labels = dict[str, str]


class Ec2Settings(_Table):
    """How machines are started on EC2, in one region."""

    region: _Word
    image_id: Annotated[str, Field(pattern=r"^ami-[0-9a-f]{8,17}$")] = Field(
        description="With cloud-init, curl, systemd, and what `command` needs."
    )
    subnets: Annotated[dict[_Word, Annotated[str, Field(pattern=r"^subnet-[0-9a-f]{8,17}$")]], Field(min_length=1)] = (
        Field(description="By zone; an offer that names no zone may go to any of them.")
    )
    security_groups: tuple[Annotated[str, Field(pattern=r"^sg-[0-9a-f]{8,17}$")], ...] = ()
    instance_profile: str | None = None
    key_name: str | None = None
    command: _Command = Field(default=["nightrate", "worker"], description="Starts a worker and ends with it.")
    boot_script: str = Field(default="", description="Shell lines before it; see docs/machines.md.")
    withheld: tuple[str, ...] = Field(default=(), description="Variables that boot_script fetches itself.")
    alternatives: dict[_Word, tuple[_Word, ...]] = Field(
        default_factory=dict, description="Instance types that are as good, by instance type."
    )
    metadata_hops: Literal[1, 2] = 1
    volume_gigabytes: Annotated[int, Field(ge=1, le=16_384)] | None = None
    tags: _Labels = Field(default_factory=dict)
    endpoint_url: str | None = None


class KubernetesSettings(_Table):
    """How Pods are started, one for each worker."""

    image: Annotated[str, Field(min_length=1)]
    namespace: _Word = "default"
    command: list[str] = Field(default_factory=list, description="Default: the image's own.")
    resources: _Labels = Field(default_factory=dict, description='Limits of one, such as {"nvidia.com/gpu" = "1"}.')
    environment_from: str | None = Field(default=None, description="A Secret whose entries all workers have.")
    node_labels: _Labels = Field(default_factory=dict)
    spot_labels: _Labels = Field(default={"karpenter.sh/capacity-type": "spot"})
    on_demand_labels: _Labels = Field(default={"karpenter.sh/capacity-type": "on-demand"})
    tolerations: tuple[_Labels, ...] = ()
    grace_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    labels: _Labels = Field(default_factory=dict)
    service_account: str | None = None
    api_url: str | None = Field(default=None, description="Default: of the cluster that the scheduler runs in.")
    token_file: Path | None = None
    ca_file: Path | None = None


class ScriptSettings(_Table):
    """Commands that start, stop and list machines; docs/machines.md says what they are told and have to answer."""

    start: _Command
    stop: _Command
    list: _Command | None = Field(default=None, description="Default: what was started and not stopped is remembered.")
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    watch: Watch | None = Field(default=None, description="How its workers hear that their machine is taken.")


class FleetSettings(_Table):
    """What the scheduler may start and stop."""

    pools: dict[Annotated[str, Field(pattern=_POOL)], FleetPoolSettings] = Field(default_factory=dict)
    policy: Literal[
        "nightrate", "greedy", "uniform_progress", "on_demand_only", "always_on", "queue_length", "keda_lag"
    ] = Field(default="nightrate", description="What decides; the others are there to compare with.")
    every_seconds: Annotated[float, Field(ge=1, le=3600)] = 15.0
    spend_per_hour_max: Annotated[Decimal, Field(ge=0, decimal_places=6, le=Decimal(10**9))] | None = None
    lifetime_hours: Annotated[float, Field(gt=0, le=8760)] = Field(
        default=24.0, description="After this a machine is gone, whatever happens; a worker drains before."
    )
    #: A worker that did not appear within so many times the pool's start is given up.
    start_patience: Annotated[float, Field(ge=1, le=100)] = 3.0
    deployment: Annotated[str, Field(pattern=_POOL)] = Field(
        default="nightrate", description="Marks our machines; two installations that share an account need two."
    )
    local_workers_max: Annotated[int, Field(ge=0, le=64)] = Field(default=4, description="Of `local`, at once.")
    ec2: Ec2Settings | None = None
    kubernetes: KubernetesSettings | None = None
    scripts: dict[_Word, ScriptSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _name_known_providers(self) -> FleetSettings:
        known = {"local", "outside", *self.scripts}
        known |= {name for name in ("ec2", "kubernetes") if getattr(self, name) is not None}
        for name, pool in self.pools.items():
            for offer in pool.offers:
                if offer.provider in {"ec2", "kubernetes"} - known:
                    raise ValueError(
                        f"pools.{name}: an offer names {offer.provider}; say how in [fleet.{offer.provider}]"
                    )
                if offer.provider not in known:
                    raise ValueError(
                        f"pools.{name}: there is no provider {offer.provider!r}, but {', '.join(sorted(known))}"
                    )
        if clash := set(self.scripts) & set(BUILT_IN_PROVIDERS):
            raise ValueError(f"scripts.{min(clash)}: that name is built in")
        return self

    @property
    def spend_micros_per_hour_max(self) -> int | None:
        """Return the limit in micro-units."""
        return None if self.spend_per_hour_max is None else int(self.spend_per_hour_max * MICROS_PER_UNIT)


def watch_of(fleet: FleetSettings, provider: str) -> Watch | None:
    """Return whose word workers wait for that were rented there."""
    match provider:
        case "ec2":
            return Watch.AWS
        case "kubernetes":
            return Watch.KUBERNETES
        case "local" | "outside":
            return None
        case _:
            return fleet.scripts[provider].watch


def offer_name(pool: str, offer: OfferSettings) -> str:
    """Return what plans, tables and metrics call an offer: unique among all."""
    parts = [pool, offer.provider, Market(offer.market).value, offer.instance_type, offer.zone]
    return "/".join(part for part in parts if part is not None)
