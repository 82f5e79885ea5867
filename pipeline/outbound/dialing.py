"""Connections to hosts that tenants name, made only to addresses that were asked about.

A name is resolved once, the policy is asked about each address it has, and the connection goes to an address that was
allowed: nothing resolves the name a second time.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.domain.addresses import Address, AddressPolicy, read_address
from pipeline.outbound.deadline import DeadlineSocket

#: Returns the addresses of a host name; raises `OSError`.
Resolve = Callable[[str, int], Sequence[str]]
#: Says whether a host, as a URL has it, may be connected to at one of its addresses.
Allows = Callable[[str, Address], bool]


class UnknownHostError(OSError):
    """Nobody knows the host's name."""


class AddressRefusedError(Exception):
    """The host has no address that may be connected to."""


@dataclass(slots=True)
class Dialer:
    """Connects to hosts. Any number of threads may ask at once."""

    policy: AddressPolicy
    connect_seconds_max: float = 5.0
    resolve: Resolve = field(default_factory=lambda: resolved)
    now_seconds: Callable[[], float] = time.monotonic
    #: None: the system's, made when it is first needed.
    tls: ssl.SSLContext | None = None

    def dial(
        self, scheme: str, host: str, port: int, deadline: float, *, allows: Allows | None = None
    ) -> DeadlineSocket:
        """Return a connection, with TLS where `scheme` is https, that is over when `now_seconds()` is `deadline`.

        Args:
            scheme: `http` or `https`.
            host: As a URL has it: what the certificate must be for.
            port: Where it listens.
            deadline: Seconds on the clock of `now_seconds`; resolving a name is the system's, and takes what it takes.
            allows: Asked about each address instead of the policy.

        Raises:
            AddressRefusedError: None of the host's addresses may be connected to.
            OSError: It is not there, not in time, or shows no valid certificate.
        """
        failure: OSError = OSError("no address")
        for address in self._addresses(host, port, allows or self.policy.allows):
            seconds = min(self.connect_seconds_max, deadline - self.now_seconds())
            if seconds <= 0:
                raise TimeoutError
            try:
                plain = socket.create_connection((str(address), port), timeout=seconds)
            except OSError as error:
                failure = error
                continue
            try:
                stream = self._context().wrap_socket(plain, server_hostname=host) if scheme == "https" else plain
            except BaseException:
                plain.close()
                raise
            return DeadlineSocket(stream, deadline, self.now_seconds)
        raise failure

    def _addresses(self, host: str, port: int, allows: Allows) -> list[Address]:
        try:
            found = [read_address(text) for text in self.resolve(host, port)]
        except (OSError, UnicodeError) as error:
            raise UnknownHostError(f"the name {host} is not known") from error
        allowed = [address for address in found if address is not None and allows(host, address)]
        if not allowed:
            raise AddressRefusedError(host)
        return allowed

    def _context(self) -> ssl.SSLContext:
        if self.tls is None:
            self.tls = ssl.create_default_context()
        return self.tls


def resolved(host: str, port: int) -> list[str]:
    """Return the addresses that the system knows for `host`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
