"""A worker process: what it serves, how it loads it, whom it reports to."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from infra.clock import SystemClock
from infra.cloud.notices import watcher_of
from pipeline.app.images import image_access
from pipeline.app.pricing import committed_workers, rates_here
from pipeline.app.stack import Stack, collect_seldom, open_stack, required
from pipeline.app.tuning import tuned
from pipeline.config import Settings
from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.rate_card import Offer
from pipeline.domain.ids import WorkerId, new_worker_id
from pipeline.domain.models import DeviceClass, ModelSpec
from pipeline.ports.engine import Engine
from pipeline.ports.fleet import NoticeKind, Watcher
from pipeline.ports.packs import WorkerRegistration
from storage.currencies import check_currency
from storage.database import Database
from storage.packs import PackRepository
from storage.prices import PriceRepository
from storage.workers import WorkerRepository
from workers.catalogue import Catalogue
from workers.garage import Garage
from workers.shadow.judge import Reference
from workers.telemetry.telemetry import machine_telemetry
from workers.worker import Shadow, Worker, WorkerSettings

#: How long a worker relies on what it knows of the registry: a variant added is served after this.
_REGISTRY_GOOD_SECONDS: Final = 5.0


def run_worker(settings: Settings, must_stop: threading.Event) -> None:
    """Run one worker until `must_stop`."""
    from infra.broker import HintListener

    with open_stack(settings) as stack, _heart_database(settings) as heart_database:
        check_currency(stack.database, settings.currency)
        catalogue = Catalogue(
            lambda: stack.variants().values(),
            partial(_key_here, settings=settings),
            now_seconds=time.monotonic,
            refresh_seconds=_REGISTRY_GOOD_SECONDS,
        )
        worker = _worker_of(settings, stack, catalogue, heart_database)
        redis_url = required(settings.redis_url, "NIGHTRATE_REDIS_URL")
        listener = HintListener(redis_url, settings.pool, worker.wake)
        listener.start()
        collect_seldom()
        watch = settings.watch_interruptions
        watcher = watcher_of(None if watch is None else str(watch), file=settings.interruption_notice)
        worker.run(must_stop.is_set, partial(_was_interrupted, watcher, must_stop))
        watcher.close()
        listener.stop()


def _worker_of(settings: Settings, stack: Stack, catalogue: Catalogue, heart_database: Database) -> Worker:
    from workers.engine.registry import engines_at_once, load_engine

    clock, images = SystemClock(), image_access(settings)
    lease_for = timedelta(seconds=settings.lease_seconds)

    def load(variant: str) -> Engine:
        return load_engine(
            tuned(catalogue.spec(variant), stack.registry.tunings(), settings),
            cache_dir=settings.home_folder / "models",
            device=settings.device,
            threads=settings.engine_threads,
            images=images,
        )

    return Worker(
        _registration_of(settings, stack, catalogue),
        packs=PackRepository(stack.database, lease_for=lease_for),
        workers=WorkerRepository(stack.database, lease_for=lease_for),
        heart_store=WorkerRepository(heart_database, lease_for=lease_for),
        objects=stack.objects,
        catalogue=catalogue,
        garage=Garage(load, engines_max=engines_at_once()),
        telemetry=machine_telemetry(clock),
        clock=clock,
        settings=WorkerSettings(
            lease_seconds=settings.lease_seconds,
            poll_seconds=settings.poll_seconds,
            commit_seconds=settings.commit_seconds,
            shadow_share=settings.shadow_share,
        ),
        shadow=_shadow_of(settings, stack, catalogue) if settings.shadow_share else None,
    )


def _registration_of(settings: Settings, stack: Stack, catalogue: Catalogue) -> WorkerRegistration:
    offer, rates = _priced(settings, stack)
    return WorkerRegistration(
        worker_id=new_worker_id() if settings.worker_id is None else WorkerId(settings.worker_id),
        pool=settings.pool,
        market=settings.market,
        host=socket.gethostname(),
        pid=os.getpid(),
        variants=catalogue.served(),
        rate_micros_per_hour=rates.effective_micros,
        currency=settings.currency,
        rates=rates,
        provider=offer.provider,
        instance_type=offer.instance_type,
        region=offer.region,
        zone=offer.zone,
        provider_id=settings.instance_id,
    )


def _shadow_of(settings: Settings, stack: Stack, catalogue: Catalogue) -> Shadow:
    from workers.engine.choice import device_class

    def open_judge(model: str) -> Reference:
        from workers.gate.sides import Bench
        from workers.shadow.references import open_reference

        bench = Bench(
            cache_dir=settings.home_folder / "models", device=settings.device, threads=settings.engine_threads
        )
        return open_reference(catalogue.spec(model), bench)

    is_alone = device_class(settings.device) is not DeviceClass.CPU
    return Shadow(store=stack.shadow, open_reference=open_judge, is_alone=is_alone)


def _key_here(spec: ModelSpec, *, settings: Settings) -> str | None:
    """Return what the variant is qualified under on this machine; None where it cannot run."""
    from workers.engine.registry import is_available
    from workers.gate.identity import served_key

    if not is_available(spec, device=settings.device):
        return None
    # Nobody asks what a reference was qualified for.
    return "" if spec.is_reference else served_key(spec, settings.device)


def _was_interrupted(watcher: Watcher, must_stop: threading.Event) -> bool:
    """Say whether the provider takes the machine, as far as is known; of an end that has begun it is asked once more."""
    notice = watcher.look() if must_stop.is_set() else watcher.notice()
    return notice is not None and notice.kind is NoticeKind.INTERRUPTION


def _priced(settings: Settings, stack: Stack) -> tuple[Offer, Amounts]:
    """Return what the worker runs on and what an hour of it costs; raises `PriceUnknownError`: nothing runs unpriced."""
    offer = settings.rate_card.offer_of(settings.pool, settings.market)
    committed = committed_workers(settings, stack.database, offer)
    rates = rates_here(settings, PriceRepository(stack.database), datetime.now(UTC), committed_workers=committed).rates
    return offer, rates


@contextmanager
def _heart_database(settings: Settings) -> Iterator[Database]:
    # A beat that cannot get through within a lease is no beat; the watchdog takes it from there.
    url = required(settings.database_url, "NIGHTRATE_DATABASE_URL")
    database = Database(url, pool_size=1, away_seconds_max=settings.lease_seconds / 3)
    try:
        yield database
    finally:
        database.close()
