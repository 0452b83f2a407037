"""Claim S1: the lease ends before ZooKeeper can end the session, whatever terms can be built."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover.errors import Unsafe
from failover.timing import PROFILES, Timing
from failover.touches import Touches


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_s1_the_lease_is_over_and_all_is_frozen_before_the_session_can_end(timing: Timing) -> None:
    # The host's clock may be slow by `drift`; ZooKeeper may hear of the renewal as it is sent, no sooner.
    on_the_ensembles_clock = (timing.lease_s + timing.freeze_s) / (1 - timing.drift)
    assert on_the_ensembles_clock < timing.session_s


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize("granted_s", [0.5, 1.4, 4.0, 60.0])
def test_s1_what_a_leader_grants_is_over_before_its_session_can_end(timing: Timing, granted_s: float) -> None:
    """Whatever session ZooKeeper has given it: a longer one than asked for is of no use to it."""
    on_the_ensembles_clock = timing.leads_s(granted_s) / (1 - timing.drift)
    assert on_the_ensembles_clock < min(granted_s, timing.leader_session_s)


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_a_leader_grants_whole_lengths_between_two_proofs_and_one_may_be_late(timing: Timing) -> None:
    assert timing.leads_s(timing.leader_session_s) - timing.grant_s > timing.told_s(timing.prove_s)
    assert timing.leader_session_s < timing.session_s


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_a_lost_renewal_does_not_end_a_lease(timing: Timing) -> None:
    assert timing.lease_s > timing.told_s(timing.renew_s) + 2 * timing.renew_s


PAUSES = {0.05: 0.5, 0.15: 0.6, 0.4: 1.2, 0.77: 1.54}  # between two requests: how old the newest that counts may be


@pytest.mark.parametrize(("pause_s", "told_s"), PAUSES.items())
def test_how_old_the_newest_request_that_counts_may_be(pause_s: float, told_s: float) -> None:
    assert PROFILES["normal"].told_s(pause_s) == pytest.approx(told_s)
    for late_s in (0.0, pause_s / 3):
        touches = Touches(PROFILES["normal"].kept_s)
        oldest_s = 0.0
        for number in range(20):
            sent_at = number * pause_s + late_s
            oldest_s = max(oldest_s, sent_at - touches.told_at if touches.told_at is not None else 0.0)
            touches.acknowledged(sent_at, sent_at + 0.01)
        assert oldest_s <= told_s + 1e-9


def test_terms_that_leave_no_lease_are_refused_in_words() -> None:
    with pytest.raises(
        Unsafe, match=r"a session of 1 s leaves a lease of only .* s, .*: raise session to at least 1\.4 s"
    ):
        Timing(session_s=1.0).checked()


# what is written instead of a good term: what is said, and what to do
UNSAFE: dict[str, tuple[dict[str, float], str]] = {
    "no drift at all": ({"drift": 0.0}, r"a drift of 0\.00% is not what two clocks do: write 0\.1% to 10%"),
    "a drift the wrong way": ({"drift": -0.01}, r"a drift of -1\.00% .*: write 0\.1% to 10%"),
    "a drift beyond reason": ({"drift": 0.5}, r"a drift of 50\.00% .*: write 0\.1% to 10%"),
    "no tick": ({"tick_s": 0.0}, r"a tick of 0 s is shorter than that of zoo\.cfg: write its tickTime"),
    "a tick too long for the session": (
        {"tick_s": 2.0},
        r"a session of 4 s .* 3\.86 s, .* ticks of 2 s: raise session to .* 12\.4 s",
    ),
    "freezing in no time": ({"freeze_s": 0.0}, r"nothing is frozen within 0 s: allow at least 10ms"),
    "the same for grants": ({"grant_freeze_s": 0.0}, r"nothing is frozen within 0 s: allow at least 10ms"),
    "freezing that takes too long": (
        {"freeze_s": 1.9},
        r"promises of 2\.01 s leave a right of only 0\.04 s: raise the sess",
    ),
    "a margin below nothing": ({"margin_s": -0.1}, r"a margin of -0\.1 s takes away what .* apart: write 0 or more"),
    "the same for a grant": (
        {"grant_margin_s": -0.1},
        r"a margin of -0\.1 s takes away what .* apart: write 0 or more",
    ),
    "too few renewals": ({"renewals": 4}, r"one renewal .* that is lost would end a right: renew at least 5 times"),
    "too many": (
        {"renewals": 1000},
        r"1000 renewals of a lease are work for ZooKeeper, and prove no more: write 20 at the most",
    ),
    "a leader that outlives hosts": (
        {"leader_session_s": 5.0},
        r"a leader's session of 5 s is longer than a host's: lower leader_session to 4 s, or raise session",
    ),
    "none": ({"renewals": 0}, r"one renewal .* that is lost would end a right: renew at least 5 times"),
    "too few questions": ({"grant_asks": 3}, r".* question that is lost would end a right: .* ask at least 4 times"),
    "a session too short": (
        {"session_s": 1.1},
        r"a session of 1\.1 s leaves a lease .*: raise session to .* 1\.4 s",
    ),
    "a leader's session too short": (
        {"leader_session_s": 1.2},
        r"a leader's session of 1\.2 s leaves it a lease of only 1\.14 s, .*: raise leader_session to .* 1\.4 s",
    ),
    "none at all": (
        {"leader_session_s": 0.0},
        r"a leader's session of 0 s leaves it a lease of only 0\.00 s, .*: raise leader_session to .* 1\.4 s",
    ),
    "a grant too long for it": (
        {"grant_s": 1.0},
        r"a leader's session of 1\.4 s .* 1\.34 s, .*: raise leader_session to .* 2\.0 s",
    ),
    "one too long": ({"leader_session_s": 61.0}, r"a session of 61 s is longer than .* allow: at most 60 s"),
    "too few proofs": ({"grant_proofs": 1}, r"one late proof .* would cut what a leader grants: prove it at least 2"),
    "a session too long": ({"session_s": 61.0}, r"a session of 61 s is longer than .* allow: at most 60 s"),
    "a grant too short": ({"grant_s": 0.05}, r"a grant of 0\.05 s .* only 0\.02 s: raise grant to at least 0\.062 s"),
}


@pytest.mark.parametrize(("terms", "said"), UNSAFE.values(), ids=UNSAFE)
def test_terms_that_are_not_safe_are_refused_with_what_to_do(terms: dict[str, float], said: str) -> None:
    with pytest.raises(Unsafe, match=f"^{said}"):
        replace(PROFILES["normal"], **terms).checked()


ADVISED = {
    "a session": {"session_s": 1.4},
    "a session for a long tick": {"session_s": 12.4, "tick_s": 2.0, "leader_session_s": 5.0},
    "a leader's session": {"leader_session_s": 1.4},
    "one for a longer grant": {"grant_s": 1.0, "leader_session_s": 2.0},
    "the longest": {"leader_session_s": 60.0, "session_s": 60.0},
    "proofs": {"grant_proofs": 2, "leader_session_s": 1.8},
    "a grant": {"grant_s": 0.062},
    "a drift": {"drift": 0.001},
    "another drift": {"drift": 0.1, "leader_session_s": 1.6},
    "a time to freeze": {"freeze_s": 0.01, "grant_freeze_s": 0.01},
    "renewals": {"renewals": 5},
    "questions": {"grant_asks": 4},
    "the longest session": {"session_s": 60.0},
}


@pytest.mark.parametrize("terms", ADVISED.values(), ids=ADVISED)
def test_what_is_advised_is_accepted_and_safe(terms: dict[str, float]) -> None:
    timing = replace(PROFILES["normal"], **terms).checked()
    test_s1_the_lease_is_over_and_all_is_frozen_before_the_session_can_end(timing)
    for granted_s in (0.5, 1.4, 60.0):
        test_s1_what_a_leader_grants_is_over_before_its_session_can_end(timing, granted_s)
    assert timing.lease_s >= timing.told_s(timing.renew_s) + 2 * timing.renew_s


def test_a_shorter_session_than_asked_for_shortens_the_lease() -> None:
    asked = PROFILES["normal"]
    assert asked.with_session(2.0).lease_s == pytest.approx(PROFILES["fast"].lease_s)
    assert asked.with_session(60.0) == asked


def test_the_proof_names_the_figures() -> None:
    assert "taken over no earlier than 2.00 s" in PROFILES["fast"].proof()
    assert "is frozen 1.76 s after the last question" in PROFILES["fast"].proof()
    assert "none of them starts it earlier than 1.88 s" in PROFILES["fast"].proof()


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_lost_questions_do_not_end_a_right_by_promises(timing: Timing) -> None:
    assert timing.promised_s(timing.promise_s) > 3 * timing.ask_s


@pytest.mark.parametrize("timing", PROFILES.values(), ids=PROFILES)
def test_asking_begins_long_before_the_lease_is_over(timing: Timing) -> None:
    """Half of it is left, so a question may be lost before the first right is needed."""
    assert timing.lease_s / 2 > 1.5 * timing.ask_s
