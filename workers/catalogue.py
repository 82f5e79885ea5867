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
        #: Guards the answers below while they are replaced; never held while the registry is asked.
        self._lock = threading.Lock()
        self._specs: dict[str, ModelSpec] = {}
        #: A variant's key does not change while this process lives; working it out asks processor and driver.
        self._keys: dict[str, tuple[ModelSpec, str | None]] = {}
        self._served: Mapping[str, str] = MappingProxyType({})
        #: Not by name: another variant under the same name is tried afresh.
        self._refused: list[ModelSpec] = []
        self._good_until = float("-inf")

    def served(self) -> Mapping[str, str]:
        """Return the gate key of each variant served, by name; asks the registry when its last answer is old.

        While the registry is away the old answer holds.
        """
        if self._now_seconds() >= self._good_until:
            self._refresh()
        return self._served

    def known(self) -> Mapping[str, str]:
        """Return what `served` returned last, without asking: for who must not wait."""
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
        specs = self._specs
        try:
            specs = {spec.variant: spec for spec in self._read()}
        except NightrateError as error:
            _LOG.warning("registry_not_read", extra={"reason": error.code})
            if not specs:
                raise
        keys = {name: (spec, self._key(spec)) for name, spec in specs.items()}
        with self._lock:
            self._specs, self._keys = specs, keys
            self._good_until = self._now_seconds() + self._refresh_seconds
            self._publish()

    def _key(self, spec: ModelSpec) -> str | None:
        known, key = self._keys.get(spec.variant, (None, None))
        return key if known == spec else self._key_of(spec)

    def _publish(self) -> None:
        keys = {name: key for name, (spec, key) in sorted(self._keys.items()) if spec not in self._refused}
        self._served = MappingProxyType({name: key for name, key in keys.items() if key is not None})
