"""How long a server that does not answer is asked again."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from random import Random
from typing import Final

from pipeline.domain.errors import NightrateError

#: A server that is restarted is back by then.
PATIENCE_SECONDS: Final = 60.0
#: One that never answered rather has another address.
_FIRST_SECONDS: Final = 5.0
_DELAY_SECONDS: Final = 0.5
_DELAY_SECONDS_MAX: Final = 8.0


@dataclass(slots=True)
class Clock:
    """Time, and what is said while it passes."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    say: Callable[[str], None] = lambda _text: None
    jitter: Random = field(default_factory=Random)


class TryAgainError(Exception):
    """A try came to nothing, and another may not."""

    def __init__(
        self, error: NightrateError, *, after_seconds: float | None = None, was_answered: bool = False
    ) -> None:
        """Keep what to raise in the end, and how long the server wants to be left alone."""
        super().__init__(error.message)
        self.error = error
        self.after_seconds = after_seconds
        self.was_answered = was_answered


class Patience:
    """Counts the tries at one thing."""

    def __init__(self, clock: Clock, *, is_first: bool) -> None:
        """Begin; `is_first`: the server never answered before."""
        self._clock = clock
        self._seconds = _FIRST_SECONDS if is_first else PATIENCE_SECONDS
        self._began_at = clock.monotonic()
        self._tries = 0

    def renew(self) -> None:
        """Begin anew: there was progress."""
        self._began_at = self._clock.monotonic()
        self._seconds = PATIENCE_SECONDS
        self._tries = 0

    def wait(self, failure: TryAgainError) -> None:
        """Wait for the next try, or raise what the last one failed of."""
        self._tries += 1
        if failure.was_answered:
            self._seconds = PATIENCE_SECONDS
        backoff = min(_DELAY_SECONDS_MAX, _DELAY_SECONDS * 2 ** (self._tries - 1))
        delay = backoff * (1 + self._clock.jitter.random() / 4)
        if failure.after_seconds is not None:
            delay = max(delay, failure.after_seconds)
        gone = self._clock.monotonic() - self._began_at
        if gone + delay > self._seconds:
            raise _final(failure, self._tries, gone)
        if self._tries == 1:
            self._clock.say(f"{failure.error.message}; trying again")
        self._clock.sleep(delay)


def retry_after(header: str | None, now_seconds: float) -> float | None:
    """Return for how many seconds a `Retry-After` wants to be waited: a number of them, or a date."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            at = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_seconds
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _final(failure: TryAgainError, tries: int, seconds: float) -> NightrateError:
    error = failure.error
    if failure.after_seconds is not None:
        told = f"it wants to be asked again in {math.ceil(failure.after_seconds)} s"
    else:
        told = f"tried {tries} times in {math.ceil(seconds)} s" if tries > 1 else "tried once"
    return type(error)(f"{error.message}: {told}", hint=error.hint)
