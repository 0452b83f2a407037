"""What a backup knows itself of the age of its replica: over a real sshd with real rsync."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from agents.replication import generation, received
from agents.replication.record import Place
from tests.replication_hosts import V1, Hosts, plant, two_hosts

pytestmark = pytest.mark.needs("root", "rsync", "sshd")


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with two_hosts() as made:
        plant(made.a.live, {"etc/passwd": "root", "top": "level"})
        yield made


def test_a_backup_knows_itself_when_its_replica_was_complete(hosts: Hosts) -> None:
    place = Place(V1, hosts.b.vservers)
    assert received.at(place) is None
    first = hosts.ship()
    known = received.at(place)
    assert known is not None and first.at - 0.01 <= known <= first.at + 5.0, "when the round began, not when it ended"
    os.sync()
    hosts.ship()
    at = hosts.ship().at  # nothing is sent
    told = received.at(place)
    assert told is not None and told < at, "a word costs a process: not in every round"
    received.forget(place)
    at = hosts.ship().at
    told = received.at(place)
    assert told is not None and told >= at - 0.01, "a round that finds nothing new says so"
    (hosts.b.vservers / ".replica" / V1 / "received").write_text("00000000-1")
    assert received.at(place) is None, "what was noted before a boot is of another clock"


def test_a_tree_that_was_live_is_no_longer_the_replica_whose_age_was_known(hosts: Hosts) -> None:
    hosts.ship()
    generation.promote(V1, 2, hosts.b.vservers)
    assert received.at(Place(V1, hosts.b.vservers)) is None
