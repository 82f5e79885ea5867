"""Images fetched from web servers that nobody here knows: to allowed addresses only, in bounded time and bytes.

Standard library alone: no proxy, cookie, cache or password of the machine is used, and no content coding is
accepted, so that nothing unpacks into more than was sent.
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from pipeline.domain.addresses import AddressPolicy, Reach
from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.images import REMOTE_SCHEMES, url_fault
from pipeline.domain.limits import IMAGE_REDIRECTS_MAX, IMAGE_URL_CHARS_MAX
from pipeline.outbound.deadline import DeadlineSocket
from pipeline.outbound.dialing import AddressRefusedError, Dialer, Resolve, UnknownHostError, resolved

_BLOCK_BYTES: Final = 64 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_GONE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
#: Statuses of a server that may do better later.
_PASSING: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_SERVER_ERRORS: Final = 500
#: Left as they are (RFC 3986); a percent sign is that of an escape.
_PATH_CHARACTERS: Final = "/%:@!$&'()*+,;=~"
_QUERY_CHARACTERS: Final = f"{_PATH_CHARACTERS}?[]"
_HEADERS: Final = {
    "Accept": "image/png, image/jpeg, image/webp, image/gif",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "nightrate",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WebLimits:
    """How long and how much."""

    bytes_max: int
    #: Of one try, redirects included.
    seconds_max: float = 20.0
    connect_seconds_max: float = 5.0
    tries_max: int = 3
    #: Before the second try; twice that before the third, and so on.
    pause_seconds: float = 0.5
    redirects_max: int = IMAGE_REDIRECTS_MAX


class _PassingError(Exception):
    """This try failed; another may not."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(slots=True)
class Web:
    """Fetches images. Any number of threads may ask at once."""

    policy: AddressPolicy
    limits: WebLimits
    resolve: Resolve = field(default_factory=lambda: resolved)
    now_seconds: Callable[[], float] = time.monotonic
    #: Waits so many seconds between tries; None: until then or `close`.
    pause: Callable[[float], object] | None = None
    tls: ssl.SSLContext | None = None
    _closed: threading.Event = field(default_factory=threading.Event)
    #: Conversations under way.
    _open: set[DeadlineSocket] = field(default_factory=set)
    _dialing: Dialer | None = None

    def fetch(self, url: str) -> bytes:
        """Return what stands at a checked http: or https: URL.

        Raises:
            RequestRefusedError: It may not be asked for, is not there, is too large, or no try got it.
        """
        why = "the worker was told to stop"
        for attempt in range(self.limits.tries_max):
            if attempt:
                wait = self.pause or self._closed.wait
                wait(self.limits.pause_seconds * 2 ** (attempt - 1))
            if self._closed.is_set():
                break
            try:
                return self._follow(url)
            except _PassingError as error:
                why = error.why
        raise RequestRefusedError(
            f"The image could not be downloaded: {why}.", code="failed_to_download_image", status_code=424
        )

    def close(self) -> None:
        """Start no try any more, and end those under way."""
        self._closed.set()
        for conversation in tuple(self._open):
            conversation.give_up()

    def _follow(self, url: str) -> bytes:
        """Return what stands at `url`, or where it is redirected to."""
        deadline = self.now_seconds() + self.limits.seconds_max
        for _ in range(self.limits.redirects_max + 1):
            parts = urlsplit(url)
            answer = self._ask(parts, deadline)
            if isinstance(answer, bytes):
                return answer
            url = _next_hop(parts, answer)
        raise _refused(f"The image's URL was redirected more than {self.limits.redirects_max} times.")

    def _ask(self, parts: SplitResult, deadline: float) -> bytes | str:
        """Return what the server sends, or where it redirects to."""
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        try:
            conversation = self._connected(parts.scheme, host, port, deadline)
        except (OSError, UnicodeError) as error:
            raise _PassingError(_reason(error)) from error
        connection = http.client.HTTPConnection(host, port)
        connection.sock = conversation
        self._open.add(conversation)
        try:
            connection.request("GET", _target(parts), headers={"Host": _host_header(parts), **_HEADERS})
            with connection.getresponse() as response:
                return self._answer(response, deadline)
        except (OSError, http.client.HTTPException) as error:
            raise _PassingError(_reason(error)) from error
        finally:
            self._open.discard(conversation)
            connection.close()

    def _connected(self, scheme: str, host: str, port: int, deadline: float) -> DeadlineSocket:
        if self.policy.reach is Reach.OFF:
            raise _refused("This installation fetches no URLs (`url_reach`): put the image into the request.")
        try:
            return self._dialer().dial(scheme, host, port, deadline)
        except UnknownHostError as error:
            raise _PassingError("its host's name is not known") from error
        except AddressRefusedError:
            raise _refused("The image's host is not one that this installation may connect to (`url_hosts`).") from None

    def _dialer(self) -> Dialer:
        if self._dialing is None:
            self._dialing = Dialer(
                self.policy, self.limits.connect_seconds_max, self.resolve, self.now_seconds, self.tls
            )
        return self._dialing

    def _answer(self, response: http.client.HTTPResponse, deadline: float) -> bytes | str:
        status = response.status
        if status in _REDIRECTS and (target := response.getheader("Location")):
            return target
        if status in _PASSING or status >= _SERVER_ERRORS:
            raise _PassingError(f"the server answered {status}")
        if status in _GONE:
            raise RequestRefusedError(f"The image's server answered {status}.", code="image_file_not_found")
        if status != HTTPStatus.OK:
            raise RequestRefusedError(f"The image's server answered {status}.", code="failed_to_download_image")
        if response.getheader("Content-Encoding", "identity").lower() != "identity":
            raise RequestRefusedError("The image's server sent it compressed.", code="failed_to_download_image")
        return self._content(response, deadline)

    def _content(self, response: http.client.HTTPResponse, deadline: float) -> bytes:
        announced = response.length
        if announced is not None and announced > self.limits.bytes_max:
            raise self._too_large()
        content = bytearray()
        while block := response.read(_BLOCK_BYTES):
            content += block
            if len(content) > self.limits.bytes_max:
                raise self._too_large()
            if self.now_seconds() > deadline or self._closed.is_set():
                raise TimeoutError
        if announced is not None and len(content) < announced:
            raise _PassingError("the server broke off")
        return bytes(content)

    def _too_large(self) -> RequestRefusedError:
        return RequestRefusedError(
            f"This image has more than {self.limits.bytes_max:,} bytes.", code="image_file_too_large"
        )


def _target(parts: SplitResult) -> str:
    """Return what the first line of a request asks for."""
    path = quote(parts.path or "/", safe=_PATH_CHARACTERS)
    return path + (f"?{quote(parts.query, safe=_QUERY_CHARACTERS)}" if parts.query else "")


def _host_header(parts: SplitResult) -> str:
    return parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()


def _next_hop(parts: SplitResult, target: str) -> str:
    try:
        url = urljoin(parts.geturl(), target)
        fault = url_fault(url)
        scheme = urlsplit(url).scheme
    except ValueError:
        raise _refused("The image's URL was redirected to something that is no URL.") from None
    if fault or len(url) > IMAGE_URL_CHARS_MAX or scheme not in REMOTE_SCHEMES:
        raise _refused("The image's URL was redirected to something other than an http: or https: URL.")
    if parts.scheme == "https" and scheme == "http":
        raise _refused("The image's URL was redirected from https: to http:.")
    return url


def _refused(message: str) -> RequestRefusedError:
    return RequestRefusedError(message, code="invalid_image_url")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the server took too long"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "the server's certificate is not valid"
    if isinstance(error, OSError):
        return "the connection failed"
    return "the server does not speak HTTP"
