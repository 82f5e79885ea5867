"""Who acts: told to the database at the start of each transaction, so that its audit log can name them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

#: Beside the database, without a key.
COMMAND_LINE: Final = "cli"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who changes something, and by which request."""

    #: The id of a key, or `COMMAND_LINE`.
    name: str
    request_id: str | None = None


_ACTOR: Final[ContextVar[Actor | None]] = ContextVar("nightrate_actor", default=None)


def actor_now() -> Actor | None:
    """Return who acts in this context; None: the system itself."""
    return _ACTOR.get()


def act_as(actor: Actor) -> None:
    """Let whatever this context does from now on be that actor's; a request has a context of its own."""
    _ACTOR.set(actor)


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Let whatever is done in the block be that actor's."""
    token = _ACTOR.set(actor)
    try:
        yield
    finally:
        _ACTOR.reset(token)
