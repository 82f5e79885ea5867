"""The sender of webhooks on a real store, with a clock and receivers of the test's own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

import orjson
import pytest
from sqlalchemy import text

from pipeline.app.webhooks import Webhooks
from pipeline.domain.ids import DEFAULT_TENANT, WebhookId, new_webhook_id
from pipeline.domain.limits import WEBHOOK_SENDERS, WEBHOOK_SENDERS_PER_WEBHOOK
from pipeline.domain.webhooks import RETRY_AFTER, SUBSCRIBABLE, TRIES_MAX, DeliveryState, DisabledReason, new_secret
from pipeline.ports.access import Scope
from pipeline.ports.webhooks import DeliveryView, Posted, Posting, WebhookDraft
from storage.database import Database
from storage.webhook_deliveries import DeliveryRepository
from storage.webhooks import WebhookRepository
from tests.services import eventually

SCOPE = Scope(tenant_id=DEFAULT_TENANT)


class KilledError(BaseException):
    """The process died."""


@dataclass
class Outlet:
    """Receivers that answer by URL as they are told, to the last answer, which stays."""

    answers: dict[str, list[Posted]] = field(default_factory=dict)
    posted: list[Posting] = field(default_factory=list)
    #: URLs that answer once `go_on` is set.
    slow: set[str] = field(default_factory=set)
    go_on: threading.Event = field(default_factory=threading.Event)
    dies: bool = False

    def post(self, posting: Posting) -> Posted:
        self.posted.append(posting)
        if posting.url in self.slow:
            self.go_on.wait()
        if self.dies:
            raise KilledError
        known = self.answers.get(posting.url, [Posted(status=204, error=None)])
        return known.pop(0) if len(known) > 1 else known[0]

    def close(self) -> None:
        self.go_on.set()

    def at(self, url: str) -> list[Posting]:
        return [each for each in self.posted if each.url == url]


@dataclass
class Setting:
    """A store, a clock that stands still, and a sender."""

    database: Database
    now: datetime
    outlet: Outlet = field(default_factory=Outlet)
    senders: list[Webhooks] = field(default_factory=list)

    @property
    def webhooks(self) -> WebhookRepository:
        return WebhookRepository(self.database)

    def sender(self) -> Webhooks:
        sender = Webhooks(
            deliveries=DeliveryRepository(self.database),
            outlet=self.outlet,
            now=lambda: self.now,
            spread=lambda: 0.5,
        )
        self.senders.append(sender)
        return sender

    def send(self) -> None:
        """Send what is due now, to the end."""
        sender = self.sender()
        sender.run_once()
        eventually(lambda: not sender._busy)
        sender.close()

    def add(self, url: str = "https://a.example/") -> WebhookId:
        draft = WebhookDraft(
            webhook_id=new_webhook_id(),
            tenant_id=DEFAULT_TENANT,
            project_id=None,
            url=url,
            description="",
            event_types=SUBSCRIBABLE,
            secret=new_secret(),
        )
        return self.webhooks.add(draft).webhook_id

    def tell(self, webhook_id: WebhookId) -> str:
        return self.webhooks.test(webhook_id, SCOPE).event_id

    def delivery(self, webhook_id: WebhookId) -> DeliveryView:
        (view,) = self.webhooks.deliveries(webhook_id, SCOPE, limit=2)
        return view


@pytest.fixture
def setting(database_url: str) -> Iterator[Setting]:
    database = Database(database_url, away_seconds_max=5.0)
    with database.transaction() as connection:
        # A little ahead of what is written during the test.
        instant = connection.execute(text("SELECT clock_timestamp() + interval '10 min'")).scalar_one()
    setting = Setting(database, cast("datetime", instant))
    try:
        yield setting
    finally:
        setting.outlet.go_on.set()
        for sender in setting.senders:
            sender.close()
        database.close()


def status(code: int) -> Posted:
    return Posted(status=code, error=None if code < 300 else f"the receiver answered {code}")


def test_what_arrives_is_sent_once(setting: Setting) -> None:
    webhook_id = setting.add()
    event_id = setting.tell(webhook_id)

    setting.send()
    setting.now += timedelta(days=2)
    setting.send()

    [posting] = setting.outlet.posted
    assert posting.event_id == event_id
    body = orjson.loads(posting.body)
    assert body == {
        "id": event_id,
        "object": "event",
        "created_at": body["created_at"],
        "type": "webhook.test",
        "data": {"id": webhook_id},
    }
    view = setting.delivery(webhook_id)
    assert (view.state, view.tries, view.last_status) == (DeliveryState.DELIVERED, 1, 204)


def test_what_fails_is_sent_again_on_schedule_with_the_same_id_and_body_and_then_given_up(setting: Setting) -> None:
    webhook_id = setting.add()
    event_id = setting.tell(webhook_id)
    setting.outlet.answers["https://a.example/"] = [status(500)]

    setting.send()
    for wait in RETRY_AFTER:
        before = len(setting.outlet.posted)
        setting.now += wait - timedelta(microseconds=1)
        setting.send()
        assert len(setting.outlet.posted) == before
        setting.now += timedelta(microseconds=1)
        setting.send()
        assert len(setting.outlet.posted) == before + 1
    setting.now += timedelta(days=2)
    setting.send()

    assert len(setting.outlet.posted) == TRIES_MAX
    assert {posting.event_id for posting in setting.outlet.posted} == {event_id}
    assert len({posting.body for posting in setting.outlet.posted}) == 1
    view = setting.delivery(webhook_id)
    assert (view.state, view.tries, view.last_status) == (DeliveryState.GAVE_UP, TRIES_MAX, 500)
    assert view.last_error == "the receiver answered 500"


def test_each_try_is_signed_at_its_own_time(setting: Setting) -> None:
    setting.tell(setting.add())
    setting.outlet.answers["https://a.example/"] = [status(503), status(200)]

    setting.send()
    setting.now += timedelta(minutes=1)
    setting.send()

    first, second = setting.outlet.posted
    assert second.sent_at - first.sent_at == timedelta(minutes=1)


def test_killed_between_sending_and_recording_it_is_sent_again_with_the_same_id(setting: Setting) -> None:
    webhook_id = setting.add()
    event_id = setting.tell(webhook_id)
    setting.outlet.dies = True
    killed = setting.sender()
    killed.run_once()
    eventually(lambda: not killed._busy)
    setting.outlet.dies = False

    setting.send()
    assert len(setting.outlet.posted) == 1
    setting.now += timedelta(seconds=61)
    setting.send()

    assert [posting.event_id for posting in setting.outlet.posted] == [event_id] * 2
    assert setting.delivery(webhook_id).state is DeliveryState.DELIVERED


def test_a_receiver_that_is_gone_is_told_nothing_more(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    webhook_id = setting.add()
    setting.tell(webhook_id)
    setting.outlet.answers["https://a.example/"] = [status(410)]

    with caplog.at_level(logging.INFO):
        setting.send()

    view = setting.webhooks.get(webhook_id, SCOPE)
    assert view.disabled_reason is DisabledReason.GONE
    assert setting.delivery(webhook_id).state is DeliveryState.GAVE_UP
    [line] = [record for record in caplog.records if record.message == "webhook_disabled"]
    assert vars(line)["webhook_id"] == webhook_id


def test_a_receiver_that_nothing_arrives_at_for_days_is_disabled(setting: Setting) -> None:
    webhook_id = setting.add()
    setting.outlet.answers["https://a.example/"] = [status(500)]

    for _ in range(5):
        setting.tell(webhook_id)
        setting.send()
        assert setting.webhooks.get(webhook_id, SCOPE).disabled_at is None
        setting.now += timedelta(days=1)
    setting.tell(webhook_id)
    setting.send()

    assert setting.webhooks.get(webhook_id, SCOPE).disabled_reason is DisabledReason.FAILING


def test_a_slow_receiver_holds_up_none_but_itself(setting: Setting) -> None:
    slow, quick = setting.add("https://slow.example/"), setting.add("https://quick.example/")
    setting.outlet.slow.add("https://slow.example/")
    for _ in range(WEBHOOK_SENDERS * 2):
        setting.tell(slow)
        setting.tell(quick)
    sender = setting.sender()

    sender.run_once()
    eventually(lambda: len(setting.outlet.at("https://quick.example/")) == WEBHOOK_SENDERS * 2)
    eventually(lambda: list(sender._busy) == [slow])
    sender.run_once()

    assert len(setting.outlet.at("https://slow.example/")) == WEBHOOK_SENDERS_PER_WEBHOOK
    setting.outlet.go_on.set()
    eventually(lambda: len(setting.outlet.at("https://slow.example/")) == WEBHOOK_SENDERS * 2)
    eventually(lambda: not sender._busy)


def test_a_try_that_closing_broke_off_is_made_again_and_is_no_failure(setting: Setting) -> None:
    webhook_id = setting.add()
    setting.tell(webhook_id)
    setting.outlet.slow.add("https://a.example/")
    setting.outlet.answers["https://a.example/"] = [Posted(status=None, error="broken off"), status(200)]
    sender = setting.sender()
    sender.run_once()
    eventually(lambda: setting.outlet.posted)

    sender.close()

    assert (setting.delivery(webhook_id).tries, setting.webhooks.get(webhook_id, SCOPE).failing_since) == (0, None)
    setting.now += timedelta(seconds=61)
    setting.send()
    assert setting.delivery(webhook_id).state is DeliveryState.DELIVERED


def test_a_sender_that_was_closed_claims_nothing_more(setting: Setting) -> None:
    sender = setting.sender()
    sender.close()
    setting.tell(setting.add())

    sender.run_once()

    assert setting.outlet.posted == []
