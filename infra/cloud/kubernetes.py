"""Workers as Pods, made and deleted at the API server directly, by plain HTTP.

A Pod is named after its worker, so that the same launch again finds it made. Its settings are in a Secret of its own,
which Kubernetes deletes with it; until that is there, the Pod waits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import HTTPError

from infra.cloud.marks import objection
from infra.cloud.pods import DEPLOYMENT_LABEL, PodTerms, ended_at, machine_of, moment, name_of, pod_of, secret_of
from pipeline.domain.costs.prices import Market
from pipeline.domain.errors import UsageError
from pipeline.ports.fleet import (
    Launch,
    Launched,
    Machine,
    ProviderUnavailableError,
    RefusalKind,
    Refused,
)

Document = dict[str, Any]

#: Where a Pod finds who it is and whom to ask.
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CONNECT_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 30.0
_ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
_AT_ONCE: Final = 4
_PAGE: Final = 500
_PAGES_MAX: Final = 200
#: How long an ended Pod is kept, so that a late repetition of its launch starts nothing.
_KEPT: Final = timedelta(hours=1)
_OK: Final = range(200, 300)
_FORBIDDEN, _NOT_FOUND, _CONFLICT, _GONE, _TOO_MANY, _SERVER_ERROR = 403, 404, 409, 410, 429, 500
_MARKETS: Final = frozenset({Market.SPOT, Market.ON_DEMAND})


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServer:
    """Whom to ask, and as whom.

    Attributes:
        url: such as `https://10.0.0.1:443`.
        token_file: is read for each request: tokens are renewed. None: nothing is sent.
        ca_file: has the certificates to trust instead of the system's.
    """

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None

    @classmethod
    def of_this_pod(cls, environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> ApiServer:
        """Return the API server of the cluster that we run in; raises `UsageError` where we run in none."""
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise UsageError("this is no Pod of a Kubernetes cluster", hint="name the API server and a token's file")
        where = f"[{host}]" if ":" in host else host
        return cls(url=f"https://{where}:{port}", token_file=folder / "token", ca_file=folder / "ca.crt")


class ApiError(Exception):
    """The API server refused."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        """Keep the HTTP status, Kubernetes' reason, and its words."""
        self.status = status
        self.reason = reason
        super().__init__(message)


class ApiClient:
    """Asks one API server. Safe to share between threads."""

    def __init__(self, server: ApiServer) -> None:
        """Ask nothing yet."""
        self._server = server
        self._pool = urllib3.PoolManager(
            ca_certs=None if server.ca_file is None else str(server.ca_file),
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_ANSWER_SECONDS),
            retries=False,
            maxsize=_AT_ONCE,
        )

    def ask(
        self,
        method: str,
        path: str,
        document: Document | None = None,
        *,
        query: Mapping[str, str | int] | None = None,
    ) -> Document:
        """Return what is answered; raises `ApiError`, and `ProviderUnavailableError` where no answer comes."""
        url = f"{self._server.url}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json"}
        body = None
        if document is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(document).encode()
        try:
            if self._server.token_file is not None:
                headers["Authorization"] = f"Bearer {self._server.token_file.read_text().strip()}"
            # No redirection: the token is for this server.
            response = self._pool.request(
                method, url, body=body, headers=headers, redirect=False, preload_content=False
            )
            try:
                content = response.read(_ANSWER_BYTES_MAX)
            finally:
                response.release_conn()
        except (HTTPError, OSError) as error:
            raise ProviderUnavailableError(f"the API server at {self._server.url} cannot be asked: {error}") from error
        answer = _document(content)
        if response.status in _OK and answer is None:
            raise ProviderUnavailableError(f"the answer of {self._server.url} cannot be read")
        answer = answer or {}
        if response.status not in _OK:
            message = str(answer.get("message") or content[:200].decode(errors="replace") or "no reason given")
            raise ApiError(response.status, str(answer.get("reason", "")), f"{response.status}: {message}")
        return answer

    def close(self) -> None:
        """Close its connections."""
        self._pool.clear()


class KubernetesProvider:
    """A `MachineProvider` of Pods in one namespace."""

    def __init__(
        self,
        terms: PodTerms,
        server: ApiServer,
        *,
        name: str = "kubernetes",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Ask nothing yet."""
        self._terms = terms
        self._client = ApiClient(server)
        self._name = name
        self._now = now
        self._pods = f"/api/v1/namespaces/{quote(terms.namespace, safe='')}/pods"
        self._secrets = f"/api/v1/namespaces/{quote(terms.namespace, safe='')}/secrets"

    @property
    def name(self) -> str:
        """What settings and tables call it."""
        return self._name

    def start(self, launches: Sequence[Launch]) -> list[Launched | Refused]:
        """Make Pods, a few at once; see the port. Whether a node has room for one shows later, in its state."""
        if not launches:
            return []
        with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(launches))) as threads:
            return list(threads.map(self._start, launches))

    def stop(self, provider_ids: Sequence[str]) -> None:
        """Delete Pods, which have their grace to drain in; those that are gone already are passed over."""
        for provider_id in provider_ids:
            self._delete(provider_id)

    def machines(self) -> list[Machine]:
        """Return the Pods of this deployment that have not ended; deletes those that ended over an hour ago."""
        try:
            pods = self._listed()
        except ApiError as error:
            raise ProviderUnavailableError(f"Kubernetes did not list Pods: {error}", hint=_hint(error)) from error
        for pod in pods:
            end = ended_at(pod)
            if end is not None and self._now() - end > _KEPT:
                with suppress(ProviderUnavailableError):
                    self._delete(pod["metadata"]["name"])
        return [machine for machine in map(machine_of, pods) if machine is not None]

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def _start(self, launch: Launch) -> Launched | Refused:
        problem = objection(launch)
        if problem is None and launch.market not in _MARKETS:
            problem = f"Pods run on spot or on demand, not as {launch.market}"
        if problem is not None:
            return Refused(worker_id=launch.worker_id, kind=RefusalKind.REJECTED, message=problem)
        try:
            pod = self._made(launch)
            self._settle(launch, pod)
        except ApiError as error:
            return Refused(worker_id=launch.worker_id, kind=_kind_of(error), message=str(error))
        except ProviderUnavailableError as error:
            # Nobody knows whether it was made: the same again finds out.
            return Refused(worker_id=launch.worker_id, kind=RefusalKind.THROTTLED, message=error.message)
        return Launched(
            worker_id=launch.worker_id,
            provider_id=pod["metadata"]["name"],
            launched_at=moment(pod["metadata"]["creationTimestamp"]),
            zone=launch.zone,
        )

    def _made(self, launch: Launch) -> Document:
        try:
            return self._client.ask("POST", self._pods, pod_of(self._terms, launch, now=self._now()))
        except ApiError as error:
            if error.status != _CONFLICT or error.reason != "AlreadyExists":
                raise
        return self._client.ask("GET", f"{self._pods}/{name_of(launch.worker_id)}")

    def _settle(self, launch: Launch, pod: Document) -> None:
        """Give a Pod the Secret that it waits for, unless an earlier try did."""
        try:
            self._client.ask("POST", self._secrets, secret_of(self._terms, launch, pod_uid=str(pod["metadata"]["uid"])))
        except ApiError as error:
            if error.status == _CONFLICT and error.reason == "AlreadyExists":
                return
            if _kind_of(error) is not RefusalKind.THROTTLED:
                # It would wait for its Secret for ever.
                with suppress(ProviderUnavailableError):
                    self._delete(pod["metadata"]["name"])
            raise

    def _delete(self, provider_id: str) -> None:
        try:
            self._client.ask("DELETE", f"{self._pods}/{quote(provider_id, safe='')}")
        except ApiError as error:
            if error.status not in {_NOT_FOUND, _GONE}:
                message = f"Kubernetes did not delete {provider_id}: {error}"
                raise ProviderUnavailableError(message, hint=_hint(error)) from error

    def _listed(self) -> list[Document]:
        query: dict[str, str | int] = {
            "labelSelector": f"{DEPLOYMENT_LABEL}={self._terms.deployment}",
            "limit": _PAGE,
        }
        pods: list[Document] = []
        for _ in range(_PAGES_MAX):
            page = self._client.ask("GET", self._pods, query=query)
            if page.get("kind") != "PodList":
                # Half a list would make workers look lost.
                raise ProviderUnavailableError("Kubernetes answers no list of Pods")
            pods += page.get("items") or []
            following = page.get("metadata", {}).get("continue")
            if not following:
                return pods
            query["continue"] = following
        raise ProviderUnavailableError(f"Kubernetes lists more than {_PAGES_MAX * _PAGE} Pods")


def _document(content: bytes) -> Document | None:
    try:
        answer = json.loads(content)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _kind_of(error: ApiError) -> RefusalKind:
    if error.status == _FORBIDDEN and "exceeded quota" in str(error):
        return RefusalKind.QUOTA
    if error.status == _TOO_MANY or error.status >= _SERVER_ERROR or error.status == _CONFLICT:
        return RefusalKind.THROTTLED
    return RefusalKind.REJECTED


def _hint(error: ApiError) -> str | None:
    return "docs/machines.md has the rights that are needed" if error.status == _FORBIDDEN else None
