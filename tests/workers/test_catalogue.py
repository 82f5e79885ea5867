from __future__ import annotations

from collections.abc import Iterable

import pytest

from pipeline.domain.errors import ModelUnavailableError, StoreUnavailableError
from pipeline.domain.models import EngineKind, ModelSpec
from workers.catalogue import Catalogue

ECHO = ModelSpec(name="echo", source="", engine=EngineKind.ECHO)
CHAT = ModelSpec(name="chat", source="/chat", engine=EngineKind.TORCH)


class Registry:
    """A registry that can be changed and taken away, and a clock."""

    def __init__(self, *specs: ModelSpec) -> None:
        self.specs = specs
        self.is_away = False
        self.now = 0.0

    def read(self) -> Iterable[ModelSpec]:
        if self.is_away:
            raise StoreUnavailableError
        return self.specs

    def catalogue(self) -> Catalogue:
        return Catalogue(
            self.read,
            lambda spec: None if spec.source == "/elsewhere" else f"key of {spec.source}",
            now_seconds=lambda: self.now,
            refresh_seconds=5.0,
        )


def test_only_what_can_run_here_is_served() -> None:
    elsewhere = ModelSpec(name="big", source="/elsewhere", engine=EngineKind.TORCH)

    assert dict(Registry(ECHO, elsewhere).catalogue().served()) == {"echo": "key of "}


def test_what_is_added_is_served_once_the_last_answer_is_old() -> None:
    registry = Registry(ECHO)
    catalogue = registry.catalogue()
    catalogue.served()
    registry.specs = (ECHO, CHAT)

    registry.now = 4.9
    assert set(catalogue.served()) == {"echo"}
    registry.now = 5.0
    assert set(catalogue.served()) == {"echo", "chat"}
    assert catalogue.spec("chat") == CHAT


def test_what_was_refused_stays_out_until_it_is_something_else() -> None:
    registry = Registry(ECHO, CHAT)
    catalogue = registry.catalogue()
    catalogue.served()

    catalogue.refuse("chat")
    registry.now = 10.0
    assert set(catalogue.served()) == {"echo"}
    with pytest.raises(ModelUnavailableError, match="chat is not served"):
        catalogue.spec("chat")

    registry.specs = (ECHO, ModelSpec(name="chat", source="/mended", engine=EngineKind.TORCH))
    registry.now = 20.0
    assert set(catalogue.served()) == {"echo", "chat"}


def test_while_the_registry_is_away_the_last_answer_holds() -> None:
    registry = Registry(ECHO)
    catalogue = registry.catalogue()
    catalogue.served()
    registry.is_away, registry.now = True, 10.0

    assert set(catalogue.served()) == {"echo"}


def test_a_worker_that_never_reached_the_registry_serves_nothing_quietly() -> None:
    registry = Registry(ECHO)
    registry.is_away = True

    with pytest.raises(StoreUnavailableError):
        registry.catalogue().served()


def test_who_must_not_wait_has_the_last_answer_while_the_registry_is_asked() -> None:
    registry = Registry(ECHO)
    catalogue = registry.catalogue()
    catalogue.served()
    seen: list[object] = []

    def read() -> Iterable[ModelSpec]:
        # What the runner asks for while the feed's question hangs.
        seen.extend([dict(catalogue.known()), catalogue.spec("echo")])
        return (ECHO, CHAT)

    catalogue._read = read
    registry.now = 10.0

    assert set(catalogue.served()) == set(catalogue.known()) == {"echo", "chat"}
    assert seen == [{"echo": "key of "}, ECHO]


def test_a_key_is_worked_out_once_for_each_variant() -> None:
    registry = Registry(ECHO)
    asked: list[ModelSpec] = []
    catalogue = Catalogue(
        registry.read, lambda spec: asked.append(spec) or "key", now_seconds=lambda: registry.now, refresh_seconds=5.0
    )

    for registry.now in (0.0, 10.0, 20.0):
        catalogue.served()
    assert asked == [ECHO]

    registry.specs, registry.now = (ECHO, CHAT), 30.0
    catalogue.served()
    assert asked == [ECHO, CHAT]
