"""A vserver's network: an address that moves is answered at once, one that is down is silent, nothing is left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents import network
from agents.command import run
from agents.isolation import syscalls
from failover.errors import FailoverError
from failover.model import Network
from tests.wires import Wires, answers, eventually, inside

MACVLAN, BRIDGE = Network(device="eth0"), Network(bridge="br0")
FORMS = pytest.mark.parametrize("form", [MACVLAN, BRIDGE], ids=["macvlan", "bridge"])
ADDRESSES = ("10.9.0.101/24", "fd09::101/64")
BARE = pytest.mark.parametrize("address", ["10.9.0.101", "fd09::101"], ids=["IPv4", "IPv6"])


@pytest.fixture
def wires() -> Iterator[Wires]:
    made = Wires()
    yield made
    made.close()


class Host:
    """One end of the wires, with its own /run/vserver."""

    def __init__(self, wires: Wires, name: str, form: Network, run: Path) -> None:
        self.netns = wires.host(name, bridge=form.bridge is not None)
        self.form, self.run = form, run / name
        self.run.mkdir()

    def prepare(self, name: str = "v1", addresses: tuple[str, ...] = ADDRESSES) -> Path:
        return inside(self.netns, lambda: network.prepare(name, self.form, addresses, "10.9.0.254", run=self.run))

    def up(self, name: str = "v1") -> None:
        inside(self.netns, lambda: network.up(name, run=self.run))

    def down(self, name: str = "v1") -> None:
        network.down(name, run=self.run)

    def remove(self, name: str = "v1") -> None:
        inside(self.netns, lambda: network.remove(name, run=self.run))

    def links(self, wires: Wires) -> set[str]:
        return {link["ifname"] for link in json.loads(wires.ip(self.netns, "-json link show"))}


@pytest.fixture
def hosts(wires: Wires, form: Network, tmp_path: Path) -> Iterator[tuple[Host, Host, Path]]:
    alpha, beta = (Host(wires, name, form, tmp_path) for name in ("alpha", "beta"))
    peer = wires.host("peer", "10.9.0.1/24", "fd09::1/64")
    yield alpha, beta, peer
    for host in (alpha, beta):
        for name in network.prepared(run=host.run):
            host.remove(name)


# --- pure -------------------------------------------------------------------------------------------------------------


def test_the_mac_address_comes_from_the_name_and_is_locally_administered() -> None:
    assert network.mac_of("web1") == network.mac_of("web1") != network.mac_of("web2")
    assert network.mac_of("web1").startswith(network.PREFIX)
    assert int(network.PREFIX[:2], 16) & 0b11 == 0b10


def test_an_ipv4_address_is_announced_by_a_request_and_a_reply_to_everyone() -> None:
    request, reply = network.frames("02:fa:10:00:00:01", ["10.0.0.5/24"])
    head, source, address = "ffffffffffff02fa100000010806", "02fa10000001", "0a000005"
    assert request.hex() == f"{head}0001080006040001{source}{address}000000000000{address}"
    assert reply.hex() == f"{head}0001080006040002{source}{address}ffffffffffff{address}"


def test_an_ipv6_address_is_announced_by_an_advertisement_that_overrides() -> None:
    (frame,) = network.frames("02:fa:10:00:00:01", ["fd00::5/64"])
    assert frame[:14].hex() == "33330000000102fa1000000186dd"
    assert frame[14 + 7] == 255  # hop limit: less is ignored
    assert frame[14 + 24 : 14 + 40].hex() == "ff020000000000000000000000000001"
    assert frame[54:56].hex() == "8800" and frame[58:62].hex() == "20000000"
    assert frame[62:78].hex() == "fd000000000000000000000000000005" and frame[78:].hex() == "020102fa10000001"
    assert network._checksum(frame[22:54] + b"\0\0\0\x20\0\0\0\x3a" + frame[54:]) == 0


# --- real namespaces --------------------------------------------------------------------------------------------------


@pytest.mark.needs("root")
@FORMS
@BARE
def test_an_address_that_moves_is_answered_at_once(hosts: tuple[Host, Host, Path], address: str) -> None:
    alpha, beta, peer = hosts
    alpha.prepare()
    beta.prepare()
    alpha.up()
    assert answers(peer, address)
    for source, target in ((alpha, beta), (beta, alpha), (alpha, beta)):
        source.down()
        assert not answers(peer, address, timeout_s=0.1)
        target.up()
        assert answers(peer, address), "the first request after the move is lost"


@pytest.mark.needs("root")
@FORMS
def test_going_up_tells_the_switches_where_the_address_is_now(hosts: tuple[Host, Host, Path], wires: Wires) -> None:
    alpha, beta, peer = hosts
    for host in (alpha, beta):
        netns = host.prepare(addresses=("10.9.0.101/24",))
        quiet = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"  # else the kernel says something by itself
        run(["nsenter", f"--net={netns}", "sh", "-c", quiet], timeout_s=10)
    alpha.up()
    assert answers(peer, "10.9.0.101")
    alpha.down()
    beta.up()
    assert answers(peer, "10.9.0.101")


@pytest.mark.needs("root")
@FORMS
@BARE
def test_an_announcement_corrects_what_a_neighbour_believes(
    hosts: tuple[Host, Host, Path], wires: Wires, address: str
) -> None:
    alpha, _, peer = hosts
    alpha.prepare()
    alpha.up()
    wires.ip(peer, f"neigh replace {address} lladdr 02:00:00:00:00:99 dev eth0 nud reachable")
    assert not answers(peer, address, timeout_s=0.1)

    def corrected() -> bool:  # a neighbour takes no second word on an IPv4 address within a second
        network.announce("v1", run=alpha.run)
        return network.mac_of("v1") in wires.ip(peer, f"neigh show {address}")

    assert eventually(corrected)
    assert answers(peer, address)


@pytest.mark.needs("root")
@FORMS
@BARE
def test_a_link_that_is_down_is_silent_and_comes_back_whole(
    hosts: tuple[Host, Host, Path], wires: Wires, address: str
) -> None:
    alpha, _, peer = hosts
    alpha.prepare()
    assert not answers(peer, address, timeout_s=0.1), "prepared is not up"
    alpha.up()
    alpha.up()
    assert answers(peer, address)
    alpha.down()
    alpha.down()
    wires.ip(peer, "neigh flush all")
    assert not answers(peer, address, timeout_s=0.3)
    alpha.up()
    assert answers(peer, address)
    assert "default via 10.9.0.254" in wires.ip(alpha.run / "v1" / "netns", "route show")


@pytest.mark.needs("root")
@FORMS
def test_preparing_again_keeps_what_is_as_it_should_be_and_replaces_the_rest(
    hosts: tuple[Host, Host, Path], wires: Wires
) -> None:
    alpha, _, peer = hosts
    netns = alpha.prepare()
    first = netns.stat().st_ino
    assert alpha.prepare().stat().st_ino == first
    (netns.parent / "network.json").unlink()  # killed before it was done
    assert alpha.prepare().stat().st_ino != first
    syscalls.umount(netns, syscalls.MNT_DETACH)  # the mount is lost, a link may be left
    alpha.prepare()
    alpha.up()
    assert answers(peer, "10.9.0.101")


@pytest.mark.needs("root")
@FORMS
def test_removing_leaves_nothing_and_removes_the_half_of_it_too(hosts: tuple[Host, Host, Path], wires: Wires) -> None:
    alpha, _, _ = hosts
    before = alpha.links(wires)
    alpha.remove()
    alpha.prepare()
    alpha.up()
    assert network.prepared(run=alpha.run) == ("v1",)
    alpha.remove()
    assert network.prepared(run=alpha.run) == ()
    assert alpha.links(wires) == before
    assert list((alpha.run / "v1").iterdir()) == []
    alpha.prepare()
    syscalls.umount(alpha.run / "v1" / "netns", syscalls.MNT_DETACH)
    alpha.remove()
    assert eventually(lambda: alpha.links(wires) == before)


@pytest.mark.needs("root")
@FORMS
def test_two_hands_that_remove_at_once_both_succeed(
    hosts: tuple[Host, Host, Path], wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha, _, _ = hosts
    before, looked = alpha.links(wires), network._mounted
    alpha.prepare()

    def looked_in_time(netns: Path) -> bool:
        """The other hand is quicker, right after this one has looked."""
        found = looked(netns)
        if found:
            syscalls.umount(netns, syscalls.MNT_DETACH)
            netns.unlink()
        return found

    monkeypatch.setattr(network, "_mounted", looked_in_time)
    alpha.remove()
    assert eventually(lambda: alpha.links(wires) == before)


@pytest.mark.needs("root")
@FORMS
def test_two_vservers_of_one_host_reach_each_other(hosts: tuple[Host, Host, Path]) -> None:
    alpha, _, _ = hosts
    inside(alpha.netns, lambda: network.prepare("v2", alpha.form, ["10.9.0.102/24"], None, run=alpha.run))
    alpha.prepare()
    alpha.up()
    alpha.up("v2")
    assert answers(alpha.run / "v2" / "netns", "10.9.0.101")


@pytest.mark.needs("root")
@FORMS
def test_nothing_forks(hosts: tuple[Host, Host, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def forked() -> int:
        raise AssertionError("a daemon with threads must not fork")

    monkeypatch.setattr(os, "fork", forked)
    alpha, _, _ = hosts
    alpha.prepare()
    alpha.up()
    alpha.down()
    alpha.remove()


MISTAKES = {
    "a device that the host does not have": (Network(device="eth7"), ADDRESSES, None, "no device eth7", "eth0"),
    "a bridge that the host does not have": (Network(bridge="br7"), ADDRESSES, None, "no bridge br7", "eth0"),
    "a device given as a bridge": (Network(bridge="eth0"), ADDRESSES, None, "eth0 is no bridge", "device: eth0"),
    "an address that is none": (MACVLAN, ["10.9.0.300/24"], None, "10.9.0.300", "10.0.0.101/24"),
    "a gateway that is none": (MACVLAN, ADDRESSES, "router", "router", "10.0.0.101/24"),
}


@pytest.mark.needs("root")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_error(name: str, wires: Wires, tmp_path: Path) -> None:
    form, addresses, gateway, message, hint = MISTAKES[name]
    netns = wires.host("alpha")
    with pytest.raises(FailoverError) as caught:
        inside(netns, lambda: network.prepare("v1", form, addresses, gateway, run=tmp_path))
    assert message in caught.value.message and hint in caught.value.hint
    assert network.prepared(run=tmp_path) == ()


@pytest.mark.needs("root")
def test_a_mac_address_that_is_in_use_is_refused(wires: Wires, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netns = wires.host("alpha")
    inside(netns, lambda: network.prepare("v1", MACVLAN, ADDRESSES, None, run=tmp_path))
    inside(netns, lambda: network.up("v1", run=tmp_path))
    mac = network.mac_of("v1")
    monkeypatch.setattr(network, "mac_of", lambda _: mac)
    with pytest.raises(FailoverError, match="is up on this host already"):
        inside(netns, lambda: network.prepare("v2", MACVLAN, ["10.9.0.102/24"], None, run=tmp_path))
        inside(netns, lambda: network.up("v2", run=tmp_path))
    for name in ("v1", "v2"):
        network.remove(name, run=tmp_path)


@pytest.mark.needs("root")
def test_what_was_not_prepared_cannot_go_up(tmp_path: Path) -> None:
    with pytest.raises(FailoverError, match="not prepared"):
        network.up("v1", run=tmp_path)
    network.down("v1", run=tmp_path)
