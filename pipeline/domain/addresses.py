"""Which network addresses Nightrate connects to on a tenant's word: a pure decision, made before connecting.

Whoever hands in a URL chooses where this machine sends a request from inside its own network. So a name is
resolved once, each address it has is asked about here, and the connection goes to the very address that was
asked about: a name that answers otherwise the second time gains nothing. The networks are those of IANA's
registries of special-purpose addresses (RFC 6890 and its updates), written out so that the answer does not
change with the Python it runs on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from pipeline.domain.errors import UsageError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class AddressClass(StrEnum):
    """What kind of place an address leads to."""

    PUBLIC = "public"
    PRIVATE = "private"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link_local"
    MULTICAST = "multicast"
    #: Where clouds hand out machines' credentials and settings.
    METADATA = "metadata"
    #: Not to be used, not assigned, or a tunnel to somewhere else.
    RESERVED = "reserved"


class Reach(StrEnum):
    """Which hosts may be asked that nobody named."""

    #: Any whose address is public.
    PUBLIC = "public"
    #: None.
    LISTED = "listed"
    #: None, and the named ones neither.
    OFF = "off"


#: Asked in order; the first network that holds the address says what it is.
_V4: Final = tuple(
    (IPv4Network(network), kind)
    for network, kind in (
        ("169.254.169.254/32", AddressClass.METADATA),
        ("169.254.170.0/24", AddressClass.METADATA),
        ("100.100.100.200/32", AddressClass.METADATA),
        ("192.0.0.192/32", AddressClass.METADATA),
        ("168.63.129.16/32", AddressClass.METADATA),
        ("127.0.0.0/8", AddressClass.LOOPBACK),
        ("10.0.0.0/8", AddressClass.PRIVATE),
        ("172.16.0.0/12", AddressClass.PRIVATE),
        ("192.168.0.0/16", AddressClass.PRIVATE),
        ("100.64.0.0/10", AddressClass.PRIVATE),
        ("169.254.0.0/16", AddressClass.LINK_LOCAL),
        ("224.0.0.0/4", AddressClass.MULTICAST),
        ("0.0.0.0/8", AddressClass.RESERVED),
        ("192.0.0.0/24", AddressClass.RESERVED),
        ("192.0.2.0/24", AddressClass.RESERVED),
        ("192.88.99.0/24", AddressClass.RESERVED),
        ("198.18.0.0/15", AddressClass.RESERVED),
        ("198.51.100.0/24", AddressClass.RESERVED),
        ("203.0.113.0/24", AddressClass.RESERVED),
        ("240.0.0.0/4", AddressClass.RESERVED),
    )
)
_V6: Final = tuple(
    (IPv6Network(network), kind)
    for network, kind in (
        ("fd00:ec2::254/128", AddressClass.METADATA),
        ("fd20:ce::254/128", AddressClass.METADATA),
        ("::1/128", AddressClass.LOOPBACK),
        ("fc00::/7", AddressClass.PRIVATE),
        ("fe80::/10", AddressClass.LINK_LOCAL),
        ("fec0::/10", AddressClass.PRIVATE),
        ("ff00::/8", AddressClass.MULTICAST),
        ("2001::/23", AddressClass.RESERVED),
        ("2001:db8::/32", AddressClass.RESERVED),
        ("2002::/16", AddressClass.RESERVED),
        ("3fff::/20", AddressClass.RESERVED),
    )
)
#: IPv6 addresses whose last 32 bits are an IPv4 address that the packet goes to.
_V4_INSIDE: Final = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")

#: What a host may be that was named by its name: the engineer's own networks, never the machine itself.
_NAMED: Final = frozenset({AddressClass.PUBLIC, AddressClass.PRIVATE})
_ACCEPTED: Final = "host names, addresses and networks, such as images.example.com, 10.1.2.3 or 10.0.0.0/8"


def address_class(address: Address) -> AddressClass:
    """Return what kind of place `address` leads to; an IPv4 address inside an IPv6 one is looked at instead."""
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _V4 if address in network), AddressClass.PUBLIC)
    if any(address in network for network in _V4_INSIDE):
        return address_class(IPv4Address(int(address) & 0xFFFF_FFFF))
    for network, kind in _V6:
        if address in network:
            return kind
    return AddressClass.PUBLIC if address in _GLOBAL_UNICAST else AddressClass.RESERVED


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPolicy:
    """Where URLs of tenants may lead."""

    reach: Reach = Reach.OFF
    #: Hosts that may also be on a private network, in lower case.
    names: frozenset[str] = frozenset()
    #: Networks that may be reached whatever they are.
    networks: tuple[Network, ...] = ()

    def allows(self, host: str, address: Address) -> bool:
        """Say whether `host`, as a URL has it, may be connected to at `address`, which it resolved to."""
        if self.reach is Reach.OFF:
            return False
        if any(address in network for network in self.networks):
            return True
        kind = address_class(address)
        if normal_host(host) in self.names:
            return kind in _NAMED
        return self.reach is Reach.PUBLIC and kind is AddressClass.PUBLIC

    def names_it(self, host: str, address: Address) -> bool:
        """Say whether it is the installation that named this host or address, whatever else is allowed."""
        return normal_host(host) in self.names or any(address in network for network in self.networks)


def policy_of(reach: Reach, hosts: Iterable[str]) -> AddressPolicy:
    """Return the policy of a setting: `hosts` are names, addresses and networks; raises `UsageError`."""
    names: set[str] = set()
    networks: list[Network] = []
    for host in hosts:
        try:
            networks.append(ip_network(host))
        except ValueError:
            name = normal_host(host)
            if not name or not all(part.replace("-", "").replace("_", "").isalnum() for part in name.split(".")):
                raise UsageError(f"{host!r} is no host and no network", hint=_ACCEPTED) from None
            names.add(name)
    return AddressPolicy(reach=reach, names=frozenset(names), networks=tuple(networks))


def normal_host(host: str) -> str:
    """Return a host's name as names are compared: in lower case, without the dot of the root."""
    return host.lower().removesuffix(".")


def read_address(text: str) -> Address | None:
    """Return the address that `text` is, such as a resolver gave; None where it is none. A scope is dropped."""
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None
