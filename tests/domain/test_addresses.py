from __future__ import annotations

from ipaddress import ip_address

import pytest

from pipeline.domain.addresses import AddressClass, AddressPolicy, Reach, address_class, policy_of, read_address
from pipeline.domain.errors import UsageError

CLASSES = {
    AddressClass.PUBLIC: ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"],
    AddressClass.PRIVATE: ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fd12::1"],
    AddressClass.LOOPBACK: ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"],
    AddressClass.LINK_LOCAL: ["169.254.1.1", "fe80::1", "::ffff:169.254.9.9"],
    AddressClass.MULTICAST: ["224.0.0.1", "239.255.255.255", "ff02::1"],
    AddressClass.METADATA: [
        "169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254",
        "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
    ],
    AddressClass.RESERVED: [
        "0.0.0.0", "0.1.2.3", "192.0.0.8", "192.0.2.1", "198.18.0.1", "203.0.113.9", "240.0.0.1", "255.255.255.255",  # noqa: S104 -- nothing is bound
        "::", "::7f00:1", "2001:db8::1", "2001::1", "2002:7f00:1::", "64:ff9b:1::1", "100::1", "4000::1",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in CLASSES.items() for text in texts])
def test_every_kind_of_address_is_told_by_where_a_packet_to_it_goes(kind: AddressClass, text: str) -> None:
    assert address_class(ip_address(text)) is kind


def test_only_public_addresses_are_reached_unless_named() -> None:
    policy = policy_of(Reach.PUBLIC, [])

    for kind, texts in CLASSES.items():
        for text in texts:
            assert policy.allows("some.example", ip_address(text)) == (kind is AddressClass.PUBLIC)


def test_a_named_host_may_be_private_and_never_the_machine_itself() -> None:
    policy = policy_of(Reach.LISTED, ["images.corp.example"])

    assert policy.allows("Images.Corp.Example.", ip_address("10.0.0.7"))
    assert policy.allows("images.corp.example", ip_address("8.8.8.8"))
    assert not policy.allows("images.corp.example", ip_address("127.0.0.1"))
    assert not policy.allows("images.corp.example", ip_address("169.254.169.254"))
    assert not policy.allows("other.corp.example", ip_address("10.0.0.7"))
    assert not policy.allows("other.example", ip_address("8.8.8.8"))


def test_a_named_network_is_reached_whatever_it_is() -> None:
    policy = policy_of(Reach.PUBLIC, ["127.0.0.1", "10.0.0.0/8"])

    assert policy.allows("localhost", ip_address("127.0.0.1"))
    assert policy.allows("anything", ip_address("10.9.9.9"))
    assert not policy.allows("localhost", ip_address("127.0.0.2"))
    assert not policy.allows("localhost", ip_address("::1"))


def test_nothing_is_reached_where_fetching_is_off() -> None:
    policy = policy_of(Reach.OFF, ["example.com", "0.0.0.0/0"])

    assert not policy.allows("example.com", ip_address("8.8.8.8"))
    assert not AddressPolicy().allows("example.com", ip_address("8.8.8.8"))


@pytest.mark.parametrize("host", ["", "http://x", "a b", "10.0.0.1/8", "x/y", "*.example.com", "host:80"])
def test_what_is_neither_host_nor_network_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="is no host and no network"):
        policy_of(Reach.LISTED, [host])


def test_a_resolvers_answer_is_read_without_its_scope() -> None:
    assert read_address("fe80::1%eth0") == ip_address("fe80::1")
    assert read_address("2130706433") is None
