"""Requests to a server, each tried until it is answered or patience ends.

The key goes to the server's own origin and to no other: redirections are followed for downloads alone, by hand. Every
request may be sent twice: what makes something has a key of its own by which the server knows it again.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlencode, urljoin
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError, SSLError

from infra.remote.address import Origin
from infra.remote.errors import ServerAnswerError, ServerUnavailableError, error_of
from infra.remote.patience import Clock, Patience, TryAgainError, retry_after
from pipeline.domain.errors import NightrateError, UsageError

Document = dict[str, Any]

_CONNECT_SECONDS: Final = 10.0
#: Between two pieces of an answer.
_SILENCE_SECONDS: Final = 60.0
#: For all of an answer that is a document.
_ANSWER_SECONDS: Final = 120.0
_ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
_BLOCK_BYTES: Final = 256 * 1024
_REDIRECTS_MAX: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_RETRIED: Final = frozenset({408, 429})
_OK: Final = range(200, 300)
_SERVER_ERROR: Final = 500

_Result = TypeVar("_Result")


class Body(Protocol):
    """A request's body, as long as it says."""

    content_type: str
    size_bytes: int

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes."""

    def close(self) -> None:
        """Let go of what it reads from."""


class Transport:
    """Asks one server."""

    def __init__(self, base: str, key: str, *, ca_file: Path | None = None, clock: Clock | None = None) -> None:
        """Ask the server at `base` with `key`; `ca_file` has the certificates to trust instead of the system's."""
        self.clock = clock or Clock()
        self.where = base
        self._base = base
        self._origin = Origin.of(base)
        self._key = key
        self._pool = _pool_of(self._origin, ca_file)
        self._was_answered = False

    def close(self) -> None:
        """Close its connections."""
        self._pool.clear()

    def ask(
        self,
        method: str,
        path: str,
        document: Mapping[str, object] | None = None,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Document:
        """Return the document that a request is answered with; raises what the server says instead."""
        target = f"{path}?{urlencode(query)}" if query else path
        body = None if document is None else json.dumps(document).encode()
        sent = dict(headers or {}) | ({} if body is None else {"Content-Type": "application/json"})
        return self.patiently(lambda: self._document(method, target, body, sent))

    def ask_once(self, method: str, path: str) -> None:
        """Send a request that may as well come to nothing."""
        with suppress(NightrateError, TryAgainError):
            self._document(method, path, None, {})

    def send(self, path: str, body: Callable[[], Body]) -> Document:
        """Return what the server answers to a body, which is made anew for each try."""

        def attempt() -> Document:
            with closing(body()) as made:
                sent = {"Content-Type": made.content_type, "Content-Length": str(made.size_bytes)}
                return self._document("POST", path, made, sent)

        return self.patiently(attempt)

    def patience(self) -> Patience:
        """Return patience for one thing."""
        return Patience(self.clock, is_first=not self._was_answered)

    def patiently(self, attempt: Callable[[], _Result]) -> _Result:
        """Try until it succeeds, or fails for good."""
        patience = self.patience()
        while True:
            try:
                return attempt()
            except TryAgainError as failure:
                patience.wait(failure)

    @contextmanager
    def opened(self, path: str, *, start: int) -> Iterator[tuple[int, bool, str | None, Iterator[bytes]]]:
        """Open a file from byte `start` on, by one try: where its bytes begin, whether the server itself has it, its ETag.

        Raises `TryAgainError` for what another try may mend, also while it is read.
        """
        url = self._base + path
        ranged = {"Range": f"bytes={start}-"} if start else {}
        for _ in range(_REDIRECTS_MAX):
            is_own = Origin.of(url) == self._origin
            with self._answered("GET", url, None, ranged, has_key=is_own) as response:
                if response.status in _REDIRECTS:
                    url = self._next(url, response.headers.get("Location"))
                    continue
                if response.status not in _OK:
                    raise self._failure(response.status, self._read(response), response.headers)
                yield _begin_of(response, start), is_own, response.headers.get("ETag"), self._blocks(response)
                return
        raise ServerAnswerError(f"{self.where} sends downloads around in a circle")

    def _next(self, url: str, location: str | None) -> str:
        following = urljoin(url, location or "")
        try:
            origin = Origin.of(following)
        except ValueError:
            raise ServerAnswerError(f"{self.where} sends a download to a place that is no URL") from None
        if origin.scheme == "http" and self._origin.scheme == "https":
            raise ServerAnswerError(f"{self.where} sends a download to {origin.host} in clear text")
        return following

    def _document(self, method: str, target: str, body: bytes | Body | None, headers: Mapping[str, str]) -> Document:
        with self._answered(method, self._base + target, body, headers, has_key=True) as response:
            content = self._read(response)
            if response.status not in _OK:
                raise self._failure(response.status, content, response.headers)
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise ServerAnswerError(
                f"{self.where} answered what is no JSON document", hint="is it a server of Nightrate? see --url"
            )
        return document

    @contextmanager
    def _answered(
        self, method: str, url: str, body: bytes | Body | None, headers: Mapping[str, str], *, has_key: bool
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send one request and lend its answer, unread."""
        sent = {"User-Agent": f"nightrate/{version('nightrate')}", "Accept": "*/*", **headers}
        if has_key:
            sent["Authorization"] = f"Bearer {self._key}"
        with self._mended():
            response = self._pool.urlopen(
                method, url, body=body, headers=sent, redirect=False, retries=False, preload_content=False
            )
        self._was_answered = True
        try:
            with self._mended():
                yield response
        finally:
            if not response.closed:
                # What nobody reads would be taken for the beginning of the next answer.
                response.close()
            response.release_conn()

    @contextmanager
    def _mended(self) -> Iterator[None]:
        """Turn what breaks on the way into what is tried again, or not."""
        try:
            yield
        except LocationValueError as error:
            raise UsageError(f"{self.where} is no URL of a server: {error}") from error
        except SSLError as error:
            if _is_passing(error):
                raise TryAgainError(ServerUnavailableError(f"{self.where} broke off: {_said(error)}")) from error
            raise ServerUnavailableError(
                f"{self.where} cannot be trusted: {_said(error)}",
                hint="NIGHTRATE_CA_FILE names the file with the certificates of an authority of your own",
            ) from error
        except HTTPError as error:
            raise TryAgainError(ServerUnavailableError(f"{self.where} cannot be reached: {_said(error)}")) from error

    def _read(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """Return an answer's body, which is neither large nor slow."""
        give_up_at = self.clock.monotonic() + _ANSWER_SECONDS
        blocks: list[bytes] = []
        size = 0
        for block in self._blocks(response):
            blocks.append(block)
            size += len(block)
            if size > _ANSWER_BYTES_MAX:
                raise ServerAnswerError(f"{self.where} answered more than {_ANSWER_BYTES_MAX} bytes")
            if self.clock.monotonic() > give_up_at:
                slow = f"{self.where} did not end its answer in {_ANSWER_SECONDS:.0f} s"
                raise TryAgainError(ServerUnavailableError(slow))
        return b"".join(blocks)

    @staticmethod
    def _blocks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        while block := response.read1(_BLOCK_BYTES):
            yield block

    def _failure(self, status: int, body: bytes, headers: Mapping[str, str]) -> NightrateError | TryAgainError:
        error = error_of(status, body, self.where)
        is_told_off = headers.get("x-should-retry") == "false"
        if is_told_off or not (status in _RETRIED or status >= _SERVER_ERROR):
            return error
        after = retry_after(headers.get("Retry-After"), self.clock.wall())
        return TryAgainError(error, after_seconds=after, was_answered=True)


def _pool_of(origin: Origin, ca_file: Path | None) -> urllib3.PoolManager:
    if ca_file is not None and not ca_file.is_file():
        raise UsageError(f"there is no file {ca_file} with certificates", hint="see the setting `ca_file`")
    options: dict[str, Any] = {
        "timeout": urllib3.Timeout(connect=_CONNECT_SECONDS, read=_SILENCE_SECONDS),
        "cert_reqs": "CERT_REQUIRED",
        "ca_certs": None if ca_file is None else str(ca_file),
        "blocksize": _BLOCK_BYTES,
    }
    proxy = getproxies().get("https")
    if origin.scheme == "https" and proxy and not proxy_bypass(origin.host):
        return urllib3.ProxyManager(proxy, **options)
    return urllib3.PoolManager(**options)


def _begin_of(response: urllib3.BaseHTTPResponse, start: int) -> int:
    """Return which byte of the file an answer begins with."""
    if response.status != 206:  # noqa: PLR2004 -- partial content
        return 0
    unit, _, span = response.headers.get("Content-Range", "").partition(" ")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdecimal() or int(first) > start:
        raise ServerAnswerError("the server answered another range of the file than was asked for")
    return int(first)


def _is_passing(error: SSLError) -> bool:
    cause = error.args[0] if error.args else None
    return isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _said(error: Exception) -> str:
    """Return the innermost cause that says anything, without the objects that urllib3 names."""
    cause: BaseException = error
    while isinstance(inner := cause.__cause__ or cause.__context__, Exception):
        cause = inner
    text = str(cause) or str(error)
    return " ".join(text.split())[:200]
