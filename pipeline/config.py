"""Settings, read once: environment (`NIGHTRATE_…`), then `nightrate.toml`, then defaults."""

from __future__ import annotations

import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from pipeline.domain.addresses import Reach, policy_of
from pipeline.domain.costs.transactions import SharingRule
from pipeline.domain.errors import UsageError
from pipeline.domain.ids import TenantId
from pipeline.domain.limits import FILE_BYTES_MAX, RATE_MICROS_PER_HOUR_MAX
from pipeline.domain.money import MICROS_PER_UNIT
from pipeline.domain.plans import BUILT_IN, PLAN_NAME, Plan, PlanBook, TenantTerms
from pipeline.domain.rates import PER_MINUTE_MAX
from pipeline.domain.tiers import DEFAULT_WINDOWS, Tier
from pipeline.domain.windows import parse_window
from pipeline.fleet_settings import FleetSettings, Watch
from pipeline.price_settings import Multiplier, TariffSettings, TokenPriceSettings, ppm_of, tariff_of
from pipeline.rate_settings import RateCardSettings

_RATE_MAX = Decimal(RATE_MICROS_PER_HOUR_MAX) / MICROS_PER_UNIT


def _check_hosts(hosts: list[str]) -> list[str]:
    try:
        policy_of(Reach.LISTED, hosts)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return hosts


def _check_window(window: str | None) -> str | None:
    try:
        if window is not None:
            parse_window(window)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return window


class TierSettings(BaseModel):
    """Terms of one tier that are not as they come."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        default=None, description="Share of a contended pool, relative to the other tiers' weights."
    )
    floor: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Least share of a contended pool, whatever the weights say."
    )
    window: Annotated[str | None, AfterValidator(_check_window)] = Field(
        default=None, description="Completion window of batches that name none, such as 6h."
    )
    price_multiplier: Multiplier | None = Field(
        default=None, description="What is charged of what a batch costs, or of its tokens' prices. Default: 1."
    )


_Unlimited = Literal["unlimited"]
_Count = Annotated[int, Field(ge=0, le=10**15)] | _Unlimited
_PerMinute = Annotated[int, Field(ge=1, le=PER_MINUTE_MAX)] | _Unlimited
_PlanName = Annotated[str, Field(pattern=PLAN_NAME)]


class PlanSettings(BaseModel):
    """Limits, each a number or `unlimited`; what is not named is as it was."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_month: _Count | None = Field(default=None, description="Rows that run, in a calendar month (UTC).")
    tokens_per_month: _Count | None = Field(default=None, description="Input and output, in a calendar month (UTC).")
    tier_ceiling: Tier | None = Field(default=None, description="The best tier that may be had.")
    requests_per_minute: _PerMinute | None = Field(default=None, description="Of reads, and as many writes.")
    burst: Annotated[int, Field(ge=1, le=PER_MINUTE_MAX)] | None = Field(
        default=None, description="Of them, at once after a rest. Default: a minute's."
    )
    uploads_per_minute: _PerMinute | None = Field(default=None, description="Files, or parts of them.")
    enqueued_tokens_max: _Count | None = Field(
        default=None, description="Estimated tokens of one model's batches that have not ended."
    )
    batches_live_max: _Count | None = Field(default=None, description="Batches that have not ended.")
    rows_max: _Count | None = Field(default=None, description="Lines of one batch's file.")
    price_multiplier: Multiplier | None = Field(default=None, description="What is charged of the tier's price.")

    @property
    def own(self) -> dict[str, int | Tier | None]:
        """Return what is named, as fields of `Plan`."""
        named = {name: getattr(self, name) for name in PlanSettings.model_fields}
        price = named.pop("price_multiplier")
        named["price_ppm"] = None if price is None else ppm_of(price)
        return {name: None if value == "unlimited" else value for name, value in named.items() if value is not None}


class TenantSettings(PlanSettings):
    """Terms of one tenant that are not as they come: its share, its plan, and limits that are its own."""

    plan: _PlanName | None = Field(default=None, description="Instead of the one it was given by command.")
    weight: Annotated[float, Field(gt=0, le=1e6)] = Field(
        default=1.0, description="Share of its tier, relative to the other tenants' weights."
    )
    limit: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Share of a pool's workers that it may have at once, however idle the others are."
    )
    input_prefixes: list[str] = Field(
        default_factory=list, description="Places that it may name input files of, besides everybody's."
    )
    regions: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None,
        description="Where its rows may run: in pools of which [rate_card.pools] names one of these regions. Default: anywhere.",
    )


class Settings(BaseSettings):
    """Every setting with its unit, its default and what it means."""

    model_config = SettingsConfigDict(
        env_prefix="NIGHTRATE_", toml_file="nightrate.toml", extra="forbid", frozen=True, validate_default=True
    )

    home: Path = Field(
        default=Path("~/.local/share/nightrate"), description="Data folder of the embedded servers, models and logs."
    )
    database_url: SecretStr | None = Field(
        default=None, description="Postgres to use instead of the embedded one: postgresql://user:password@host/db."
    )
    redis_url: SecretStr | None = Field(
        default=None, description="Redis to use instead of the embedded one: redis://:password@host:6379/0."
    )
    objects_url: str | None = Field(
        default=None, description="Object store: file:///folder or s3://bucket/prefix. Default: a folder in home."
    )
    s3_endpoint_url: str | None = Field(default=None, description="Endpoint of an S3 server that is not AWS.")
    pool: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = Field(
        default="local", description="Pool that workers started here belong to."
    )
    market: Literal["spot", "on_demand"] = Field(default="on_demand", description="How this machine is paid for.")
    rate_per_hour: Annotated[Decimal, Field(ge=0, le=_RATE_MAX, decimal_places=6)] = Field(
        default=Decimal("0.10"), description="What an hour of one worker costs, in `currency`."
    )
    rate_card: RateCardSettings = Field(
        default_factory=RateCardSettings,
        description="Contracts and pools. discounts, a table each: provider, family (an instance family or type; all), market "
        "(both), discount_ppm. commitments, a table each: provider, family, region, workers (how many it covers; all), "
        "rate_per_hour. pools by name, a table each: provider, instance_type, region, zone, rate_per_hour (a fixed price), "
        "billing_rule (the provider's for Linux). See `nightrate prices list`.",
    )
    fleet: FleetSettings = Field(
        default_factory=FleetSettings,
        description="Pools that the scheduler fills by starting and stopping machines; docs/machines.md describes the tables.",
    )
    worker_id: Annotated[str, Field(pattern=r"^wrk_[0-9a-f]{32}$")] | None = Field(
        default=None, description="Of a worker that the scheduler asked for; whoever starts its machine sets it."
    )
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = Field(default="USD", description="ISO 4217 code.")
    instance_id: str | None = Field(
        default=None,
        description="This machine, as its provider's bill names it, such as i-0123456789abcdef0: what matches bills to workers.",
    )
    interruption_notice: Path | None = Field(
        default=None,
        description="A file that is there once the provider takes this machine: workers drain, and say so.",
    )
    watch_interruptions: Watch | None = Field(
        default=None,
        description="Whose word is waited for that this machine is taken: aws, gcp, azure or kubernetes. Workers drain, and say so.",
    )
    share_overhead: SharingRule = Field(
        default=SharingRule.NONE,
        description="How overhead of an hour that has ended is shared over the batches that ran in its pool: `none`, "
        "`proportional` (by what each cost), `even`.",
    )
    share_overhead_kinds: list[Literal["boot", "load", "idle", "drain", "minimum", "rounding"]] = Field(
        default=["idle", "boot"], description="Which overhead is shared."
    )
    workers: Annotated[int, Field(ge=0, le=64)] = Field(default=1, description="Workers that `up` and `run` start.")
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0, description="CPU threads of one worker's engine; 0: cores divided by workers."
    )
    device: str | None = Field(default=None, description="Device of the engines, such as cpu or cuda:0. Default: best.")
    models: dict[str, str] = Field(
        default_factory=dict,
        description="Further models by name: a local folder, a GGUF file, or a hub id, with the engine before it where it "
        "is not the fastest for text (`torch:`, `openvino:`, `encoder:`, `vision:`), and its options after it "
        "(`encoder:/m?recipe=float32`). Built in: see `nightrate config`.",
    )
    url_reach: Reach = Field(
        default=Reach.PUBLIC,
        description="Which URLs in requests workers fetch: `public`, of any host with a public address and of those in "
        "url_hosts; `listed`, of the latter alone; `off`, none.",
    )
    url_hosts: Annotated[list[str], AfterValidator(_check_hosts)] = Field(
        default_factory=list,
        description="Hosts that may be reached though their addresses are not public: names (private networks), "
        "addresses and networks (whatever they are).",
    )
    image_prefixes: list[str] = Field(
        default_factory=list,
        description="Places whose images every tenant may name, read with the workers' own rights: s3://bucket/prefix, "
        "file:///folder.",
    )
    input_prefixes: list[str] = Field(
        default_factory=list,
        description="Places whose files every tenant may name as inputs, read with the API's own rights: s3://bucket/prefix, "
        "file:///folder.",
    )
    webhook_reach: Reach = Field(
        default=Reach.PUBLIC,
        description="Where webhooks may be sent: `public`, by https to any host with a public address and to those in "
        "webhook_hosts; `listed`, to the latter alone; `off`, nowhere.",
    )
    webhook_hosts: Annotated[list[str], AfterValidator(_check_hosts)] = Field(
        default_factory=list,
        description="Hosts that webhooks may also reach by http, on any port and without a public address: names (private "
        "networks), addresses and networks (whatever they are).",
    )
    lease_seconds: Annotated[float, Field(ge=1, le=3600)] = Field(
        default=30.0, description="A worker silent for this long loses its packs."
    )
    commit_seconds: Annotated[float, Field(gt=0, le=600)] = Field(
        default=2.0, description="How often a worker commits finished rows: what a crash can lose."
    )
    pack_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=10.0, description="Predicted work of one pack."
    )
    tiers: dict[Tier, TierSettings] = Field(
        default_factory=dict,
        description="Terms of tiers, a table each: weight, floor (a least share), window, price_multiplier (1). Weights as they come: urgent 8, "
        "standard 4, bulk 2, nightly 1.",
    )
    tenants: dict[str, TenantSettings] = Field(
        default_factory=dict,
        description="Terms of tenants by id, a table each: weight (1), limit (the share of a pool's workers that it may have "
        "at once), plan (instead of the one given by `nightrate plans set`), and any limit of a plan as its own; input_prefixes (places that it may name "
        "input files of).",
    )
    plans: dict[_PlanName, PlanSettings] = Field(
        default_factory=dict,
        description="Plans by name, a table each: requests_per_month, tokens_per_month, tier_ceiling, requests_per_minute, burst, "
        "uploads_per_minute, enqueued_tokens_max, batches_live_max, rows_max, each a number or `unlimited`; price_multiplier. What a table does "
        "not name is as built in (free, paid, vip, unlimited), or unlimited. See `nightrate plans list`.",
    )
    prices: dict[str, TokenPriceSettings] = Field(
        default_factory=dict,
        description="Models whose tokens have a price, a table each: input_per_million, output_per_million. Batches of the "
        "others are charged by what they cost.",
    )
    tariff: TariffSettings = Field(
        default_factory=TariffSettings,
        description="What is charged by the time of submission: zone, hours (a list of tables: days, from, to, multiplier), and "
        "fleet (floor and ceiling of the multiplier, by how many workers are free). See `nightrate plans prices`.",
    )
    rate_limits_fail: Literal["open", "closed"] = Field(
        default="open",
        description="What becomes of requests of tenants with a rate limit while Redis cannot be asked: `open`, they pass; "
        "`closed`, they are answered 503.",
    )
    debt_half_life_hours: Annotated[float, Field(gt=0, le=8760)] = Field(
        default=6.0,
        description="In what time that which a tenant used ahead of its share counts half, while it has no rows.",
    )
    api_host: str = Field(
        default="127.0.0.1", description="Address that the API listens on; 0.0.0.0 for all of this machine's."
    )
    api_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8400, description="Port that the API listens on; 0: any that is free."
    )
    api_processes: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1,
        description="Processes that serve the API on one port: as many as it may have processors. Each takes about 120 MB "
        "and ten connections to Postgres at most.",
    )
    key_pepper: SecretStr = Field(
        default=SecretStr(""),
        description="Secret that digests of API keys are made with, so that who can write into the database can make no "
        "key. Changing it ends all keys.",
    )
    file_retention_days: Annotated[int, Field(ge=0, le=3650)] = Field(
        default=30, description="How long files of the API are kept that name no time of their own; 0: until deleted."
    )
    upload_bytes_max: Annotated[int, Field(gt=0, le=FILE_BYTES_MAX)] = Field(
        default=FILE_BYTES_MAX, description="Largest file that the API takes in one request."
    )
    download_link_seconds: Annotated[int, Field(ge=0, le=86_400)] = Field(
        default=300,
        description="Downloads from an object store that serves them itself are redirected there, by links that hold this "
        "long; 0: they pass through the API.",
    )
    poll_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        default=1.0, description="How often a worker looks for a pack without having been told of one."
    )
    shadow_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.01,
        description="Of the rows that ran on a variant, the share that the model's reference judges afterwards; a variant "
        "shown to lose more than its tier's margin is rolled back. 0: none.",
    )
    cycle_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        default=2.0, description="How often the scheduler looks for work when nothing wakes it."
    )

    url: str | None = Field(
        default=None,
        description="Server that commands about batches ask instead of the stack here, such as https://nightrate.example.com.",
    )
    api_key: SecretStr | None = Field(default=None, description="API key for that server.")
    ca_file: Path | None = Field(
        default=None,
        description="Certificates (PEM) of the authorities to trust for that server, instead of the system's.",
    )
    insecure_http: bool = Field(
        default=False,
        description="Let `url` be http:// to another machine: the key and all data go in clear text.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file; nothing else is read."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @model_validator(mode="after")
    def _name_known_plans(self) -> Settings:
        known = {*BUILT_IN, *self.plans}
        for tenant_id, terms in self.tenants.items():
            if terms.plan is not None and terms.plan not in known:
                raise ValueError(
                    f"tenants.{tenant_id}.plan: there is no plan {terms.plan!r}, but {', '.join(sorted(known))}"
                )
        return self

    @model_validator(mode="after")
    def _price_what_can_be_charged(self) -> Settings:
        self.plan_book.check_prices()
        return self

    @property
    def plan_book(self) -> PlanBook:
        """Return the price list: the plans built in, those of the settings, and what single tenants have instead."""
        named = {
            name: replace(BUILT_IN.get(name) or Plan(name=name), **terms.own)  # type: ignore[arg-type] # each its own kind
            for name, terms in self.plans.items()
        }
        tenants = {TenantId(name): TenantTerms(plan=terms.plan, own=terms.own) for name, terms in self.tenants.items()}
        tiers = {
            tier: terms.price_multiplier for tier, terms in self.tiers.items() if terms.price_multiplier is not None
        }
        tariff = tariff_of(tiers, self.tariff, self.prices)
        return PlanBook(plans={**BUILT_IN, **named}, tenants=tenants, tariff=tariff)

    @property
    def rate_micros_per_hour(self) -> int:
        """Return the rate in micro-units."""
        return int(self.rate_per_hour * MICROS_PER_UNIT)

    def window_of(self, tier: Tier) -> str:
        """Return the completion window of a tier's batches that name none."""
        terms = self.tiers.get(tier)
        return DEFAULT_WINDOWS[tier] if terms is None or terms.window is None else terms.window

    @property
    def engine_threads(self) -> int:
        """Return the CPU threads of one worker's engine."""
        return self.threads or max(1, (os.cpu_count() or 1) // max(1, self.workers))

    @property
    def home_folder(self) -> Path:
        """Return `home` with `~` resolved."""
        return self.home.expanduser()


def load_settings() -> Settings:
    """Read the settings, or raise `UsageError` naming each bad one and where it stands."""
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(step) for step in problem['loc'])}: {problem['msg']}" for problem in error.errors()
        )
        raise UsageError(f"bad setting: {problems}", hint="`nightrate config` describes every setting") from error
    except ValueError as error:
        raise UsageError(f"nightrate.toml cannot be read: {error}") from error
