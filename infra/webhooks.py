"""Webhooks on the wire: signed per Standard Webhooks, posted once, to allowed addresses only, in bounded time and bytes.

Standard library alone but for the signature: no proxy, cookie or password of the machine is used, and no redirect is
followed.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from pipeline.domain.addresses import AddressPolicy
from pipeline.domain.ids import EventId
from pipeline.domain.limits import WEBHOOK_ANSWER_BYTES_MAX, WEBHOOK_SECONDS_MAX
from pipeline.domain.webhooks import Target, may_reach, read_url
from pipeline.outbound.deadline import DeadlineSocket
from pipeline.outbound.dialing import AddressRefusedError, Dialer, UnknownHostError
from pipeline.ports.webhooks import Posted, Posting

_BLOCK_BYTES: Final = 16 * 1024
_SUCCESS: Final = range(200, 300)
_REDIRECT: Final = range(300, 400)


def sign(secrets: Sequence[str], event_id: EventId, sent_at: datetime, body: bytes) -> str:
    """Return the header `webhook-signature`: a signature by each secret, with spaces between."""
    from standardwebhooks import Webhook

    at, written = sent_at.astimezone(UTC), body.decode()
    return " ".join(Webhook(secret).sign(event_id, at, written) for secret in secrets)


@dataclass(slots=True)
class Poster:
    """Posts webhooks. Any number of threads may ask at once."""

    policy: AddressPolicy
    seconds_max: float = WEBHOOK_SECONDS_MAX
    dialer: Dialer = field(init=False)
    #: Conversations under way.
    _open: set[DeadlineSocket] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Dial under the same policy."""
        self.dialer = Dialer(self.policy)

    def post(self, posting: Posting) -> Posted:
        """Send once and return what was answered; whatever goes wrong with the receiver is an answer, too."""
        target = read_url(posting.url)
        if target is None:
            return Posted(status=None, error="the URL is not one that webhooks can have")
        deadline = self.dialer.now_seconds() + self.seconds_max
        try:
            conversation = self.dialer.dial(
                "https" if target.is_secure else "http",
                target.host,
                target.port,
                deadline,
                allows=lambda host, address: may_reach(self.policy, target, host, address),
            )
        except AddressRefusedError:
            return Posted(status=None, error="the host is not one that this installation sends webhooks to")
        except (OSError, UnicodeError) as error:
            return Posted(status=None, error=_reason(error))
        return self._talk(conversation, target, posting)

    def close(self) -> None:
        """End the conversations under way."""
        for conversation in tuple(self._open):
            conversation.give_up()

    def _talk(self, conversation: DeadlineSocket, target: Target, posting: Posting) -> Posted:
        connection = http.client.HTTPConnection(target.host, target.port)
        # What `http.client` uses of a socket, see there.
        connection.sock = conversation
        self._open.add(conversation)
        try:
            connection.request("POST", target.path, posting.body, _headers(target, posting))
            with connection.getresponse() as response:
                self._throw_away(response)
                return Posted(status=response.status, error=_refusal(response.status))
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Posted(status=None, error=_reason(error))
        finally:
            self._open.discard(conversation)
            connection.close()

    def _throw_away(self, response: http.client.HTTPResponse) -> None:
        read_bytes = 0
        # The status has arrived, and with it all that counts.
        with contextlib.suppress(OSError, http.client.HTTPException):
            while read_bytes < WEBHOOK_ANSWER_BYTES_MAX and (block := response.read1(_BLOCK_BYTES)):
                read_bytes += len(block)


def _headers(target: Target, posting: Posting) -> dict[str, str]:
    return {
        "Host": target.host_header,
        "Content-Type": "application/json",
        "User-Agent": "nightrate",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "webhook-id": posting.event_id,
        "webhook-timestamp": str(int(posting.sent_at.timestamp())),
        "webhook-signature": sign(posting.secrets, posting.event_id, posting.sent_at, posting.body),
    }


def _refusal(status: int) -> str | None:
    if status in _SUCCESS:
        return None
    if status in _REDIRECT:
        return f"the receiver answered {status}; redirects are not followed"
    return f"the receiver answered {status}"


def _reason(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "the receiver took too long"
        case UnknownHostError():
            return "the host's name is not known"
        case ssl.SSLCertVerificationError():
            return "the receiver's certificate is not valid"
        case OSError():
            return "the connection failed"
        case _:
            return "the receiver does not speak HTTP"
