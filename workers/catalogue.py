"""The catalogue: which variants this worker serves, as the registry has them now."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from pipeline.domain.errors import ModelUnavailableError, NightrateError
from pipeline.domain.models import ModelSpec

_LOG = logging.getLogger(__name__)


class Catalogue:
    """The registry's variants less those that cannot run here. Any thread may ask."""

    def __init__(
        self,
        read: Callable[[], Iterable[ModelSpec]],
        key_of: Callable[[ModelSpec], str | None],
        *,
        now_seconds: Callable[[], float],
        refresh_seconds: float,
    ) -> None:
        """Ask `read` for the registry, every `refresh_seconds` at most.

        Args:
            read: Returns the variants that may be served now.
            key_of: Returns a variant's gate key on this worker, or None where it cannot run here.
            now_seconds: A clock that never goes back.
            refresh_seconds: How long an answer of `read` is good for.
        """
        self._read = read
        self._key_of = key_of
        self._now_seconds = now_seconds
        self._refresh_seconds = refresh_seconds
        self._lock = threading.Lock()
        self._specs: dict[str, ModelSpec] = {}
        self._served: Mapping[str, str] = MappingProxyType({})
        #: Not by name: another variant under the same name is tried afresh.
        self._refused: list[ModelSpec] = []
        self._good_until = float("-inf")

    def served(self) -> Mapping[str, str]:
        """Return the gate key of each variant served, by name; the old answer while the registry is away."""
        with self._lock:
            if self._now_seconds() >= self._good_until:
                self._refresh()
            return self._served

    def spec(self, variant: str) -> ModelSpec:
        """Return what a variant served is made of; raises `ModelUnavailableError`."""
        with self._lock:
            if variant not in self._served:
                raise ModelUnavailableError(f"{variant} is not served here any more")
            return self._specs[variant]

    def refuse(self, variant: str) -> None:
        """Serve this variant no more: it cannot be loaded here."""
        with self._lock:
            if variant in self._specs:
                self._refused.append(self._specs[variant])
            self._publish()

    def _refresh(self) -> None:
        try:
            self._specs = {spec.variant: spec for spec in self._read()}
        except NightrateError as error:
            _LOG.warning("registry_not_read", extra={"reason": error.code})
            if not self._specs:
                raise
        self._good_until = self._now_seconds() + self._refresh_seconds
        self._publish()

    def _publish(self) -> None:
        keys = {name: self._key_of(spec) for name, spec in self._specs.items() if spec not in self._refused}
        self._served = MappingProxyType({name: key for name, key in sorted(keys.items()) if key is not None})
