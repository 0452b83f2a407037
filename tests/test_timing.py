"""Claim S1: the lease ends before ZooKeeper can end the session, whatever terms can be built."""

from __future__ import annotations

from dataclasses import replace

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


# what is written instead of a good term: what is said, and what to do
UNSAFE: dict[str, tuple[dict[str, float], str]] = {
    "no drift at all": ({"drift": 0.0}, r"a drift of 0\.00% is not what two clocks do: write 0\.1% to 10%"),
    "a drift the wrong way": ({"drift": -0.01}, r"a drift of -1\.00% .*: write 0\.1% to 10%"),
    "a drift beyond reason": ({"drift": 0.5}, r"a drift of 50\.00% .*: write 0\.1% to 10%"),
    "no tick": ({"tick_s": 0.0}, r"a tick of 0 s is none: write the tickTime of zoo\.cfg"),
    "a tick too long for the session": (
        {"tick_s": 2.0},
        r"a session of 4 s .* 0\.00 s: raise the session to .* 12\.3 s",
    ),
    "freezing in no time": ({"freeze_s": 0.0}, r"nothing is frozen within 0 s: allow at least 10ms"),
    "the same for grants": ({"grant_freeze_s": 0.0}, r"nothing is frozen within 0 s: allow at least 10ms"),
    "freezing that takes too long": (
        {"freeze_s": 1.6},
        r"promises of 1\.91 s leave a right of only 0\.24 s: raise the sess",
    ),
    "a margin below nothing": ({"margin_s": -0.1}, r"a margin of -0\.1 s takes away what .* apart: write 0 or more"),
    "the same for a grant": (
        {"grant_margin_s": -0.1},
        r"a margin of -0\.1 s takes away what .* apart: write 0 or more",
    ),
    "too few renewals": ({"renewals": 2}, r"one renewal .* that is lost would end a right: renew at least 3 times"),
    "none": ({"renewals": 0}, r"one renewal .* that is lost would end a right: renew at least 3 times"),
    "too few questions": ({"grant_asks": 3}, r".* question that is lost would end a right: .* ask at least 4 times"),
    "a session too short": (
        {"session_s": 1.3},
        r"a session of 1\.3 s leaves a lease .*: raise the session to .* 1\.4 s",
    ),
    "a session too long": ({"session_s": 61.0}, r"a session of 61 s is longer than .* allow: at most 60 s"),
    "a grant too short": ({"grant_s": 0.05}, r"a grant of 0\.05 s .* only 0\.02 s: raise it to at least 0\.062 s"),
}


@pytest.mark.parametrize(("terms", "said"), UNSAFE.values(), ids=UNSAFE)
def test_terms_that_are_not_safe_are_refused_with_what_to_do(terms: dict[str, float], said: str) -> None:
    with pytest.raises(Unsafe, match=f"^{said}"):
        replace(PROFILES["normal"], **terms)


ADVISED = {
    "a session": {"session_s": 1.4},
    "a session for a long tick": {"session_s": 12.3, "tick_s": 2.0},
    "a grant": {"grant_s": 0.062},
    "a drift": {"drift": 0.001},
    "another drift": {"drift": 0.1},
    "a time to freeze": {"freeze_s": 0.01, "grant_freeze_s": 0.01},
    "renewals": {"renewals": 3},
    "questions": {"grant_asks": 4},
    "the longest session": {"session_s": 60.0},
}


@pytest.mark.parametrize("terms", ADVISED.values(), ids=ADVISED)
def test_what_is_advised_is_accepted_and_safe(terms: dict[str, float]) -> None:
    timing = replace(PROFILES["normal"], **terms)
    test_s1_the_lease_is_over_and_all_is_frozen_before_the_session_can_end(timing)
    assert timing.lease_s > 2 * timing.renew_s


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
