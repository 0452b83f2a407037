"""Claim S1: the lease ends before ZooKeeper can end the session, whatever terms can be built."""

from __future__ import annotations

import pytest

from failover.errors import Unsafe
from failover.timing import PROFILES, Timing


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_s1_the_lease_is_over_and_all_is_frozen_before_the_session_can_end(timing: Timing) -> None:
    # The host's clock may be slow by `drift`; ZooKeeper may hear of the renewal as it is sent, but its leader take it
    # for one that came a tick earlier.
    on_the_ensembles_clock = (timing.lease_s + timing.freeze_s) / (1 - timing.drift)
    assert on_the_ensembles_clock < timing.session_s - timing.tick_s


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_a_lost_renewal_does_not_end_a_lease(timing: Timing) -> None:
    assert timing.lease_s > 3 * timing.renew_s


def test_terms_that_leave_no_lease_are_refused_in_words() -> None:
    with pytest.raises(
        Unsafe, match=r"a session of 1 s leaves a lease of only .* s: raise the session to at least 1\.[34] s"
    ):
        Timing(session_s=1.0)


def test_the_least_session_that_is_advised_is_accepted() -> None:
    assert Timing(session_s=1.4).lease_s > 0


def test_a_shorter_session_than_asked_for_shortens_the_lease() -> None:
    asked = PROFILES["normal"]
    assert asked.with_session(2.0).lease_s == pytest.approx(PROFILES["fast"].lease_s)
    assert asked.with_session(60.0) == asked


def test_the_proof_names_the_figures() -> None:
    assert "taken over no earlier than 2.00 s" in PROFILES["fast"].proof()
    assert "is frozen 1.37 s after the last question" in PROFILES["fast"].proof()
    assert "none of them starts it earlier than 1.48 s" in PROFILES["fast"].proof()


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_lost_questions_do_not_end_a_right_by_promises(timing: Timing) -> None:
    assert timing.promised_s(timing.promise_s) > 3 * timing.ask_s


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_asking_begins_long_before_the_lease_is_over(timing: Timing) -> None:
    """Half of it is left, so a question may be lost before the first right is needed."""
    assert timing.lease_s / 2 > 1.5 * timing.ask_s
