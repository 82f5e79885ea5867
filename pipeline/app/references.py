"""Files by reference: from which places a tenant may name files, and how they come into our store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pipeline.app.stack import objects_url_of
from pipeline.config import Settings
from pipeline.domain.errors import NotFoundError, UsageError
from pipeline.domain.ids import TenantId
from storage.objects.places import Place, check_prefix_url, open_place


class InputPlaces:
    """The places that the settings list. Safe to share between threads."""

    def __init__(self, everybodys: Mapping[str, Place], tenants: Mapping[str, Mapping[str, Place]]) -> None:
        """Let every tenant read `everybodys`, and each its own besides; by what URLs begin with."""
        self._everybodys = everybodys
        self._tenants = tenants

    def copy(self, tenant_id: TenantId, url: str, path: Path, *, bytes_max: int) -> None:
        """Copy what `url` names to the new file `path`.

        Raises:
            NotFoundError: The tenant may not read there, or there is nothing; nobody is told which.
            RefusedError: It is too large, or changed while it was read.
            StoreUnavailableError: It cannot be reached now.
        """
        places = {**self._everybodys, **self._tenants.get(tenant_id, {})}
        prefix = max((prefix for prefix in places if url.startswith(prefix)), key=len, default=None)
        if prefix is None:
            raise NotFoundError("There is nothing to read at this URL.")
        with path.open("xb") as target:
            places[prefix].copy(url.removeprefix(prefix), target, bytes_max=bytes_max)


def input_places(settings: Settings) -> InputPlaces:
    """Return what the settings allow; no server is contacted.

    Raises:
        UsageError: A setting makes no sense, or would show tenants each other's requests and results.
    """
    tenants = {tenant_id: _places(settings, terms.input_prefixes) for tenant_id, terms in settings.tenants.items()}
    return InputPlaces(_places(settings, settings.input_prefixes), MappingProxyType(tenants))


def _places(settings: Settings, prefixes: list[str]) -> Mapping[str, Place]:
    ours = f"{objects_url_of(settings).partition('?')[0].rstrip('/')}/"
    places: dict[str, Place] = {}
    for written in prefixes:
        prefix = check_prefix_url(written)
        if prefix.startswith(ours) or ours.startswith(prefix):
            raise UsageError(f"input_prefixes: {written} holds the requests and results of every tenant")
        places[prefix] = open_place(written, endpoint_url=settings.s3_endpoint_url)
    return MappingProxyType(places)
