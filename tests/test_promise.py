"""Promises: the holder's end comes first, whatever is lost, late, twice or from before. Claims S10 to S12."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agents.promise import IN_ONE, Answer, Holder, Question, lasting, refusal
from agents.steps import Bond, SeenVserver
from failover.model import Assignment, State, Want
from failover.timing import PROFILES, Timing
from tests.seen import COPY, FROZEN, NOW, RUNS
from tests.views import owned

TIMING = PROFILES["fast"]
RIGHT_S = TIMING.promised_s(TIMING.promise_s)
NEVER, FOR_EVER = float("-inf"), float("inf")
BOUND = replace(COPY, bond=Bond("alpha", 7, NOW + 1))

# --- the giver: beta is asked by alpha, which owns v1 under epoch 7 ---------------------------------------------------

# name: (beta's newest word, what beta sees, the answer: empty is a promise)
GIVER: dict[str, tuple[Assignment | None, SeenVserver, str]] = {
    "who has the same word promises": (owned(), COPY, ""),
    "who has an older word promises": (owned(epoch=6, owner="gamma"), COPY, ""),
    "who has a newer word of the same owner promises": (owned(epoch=9), COPY, ""),
    "who knows another owner does not": (owned(epoch=8, owner="gamma"), COPY, "gamma owns it under epoch 8"),
    "who has just got the word to own it does not": (owned(epoch=8, owner="beta"), COPY, "beta owns it under epoch 8"),
    "who was told otherwise under the same epoch does not": (owned(owner="gamma"), COPY, "gamma owns it under epoch 7"),
    "who knows nothing of it does not": (None, COPY, "beta knows nothing of it"),
    "who was told to leave it alone does not": (owned(want=Want.IGNORED), COPY, "it is ignored"),
    "who runs it does not": (owned(), RUNS, "it is running on beta"),
    "who has it frozen does not": (owned(), FROZEN, "it is frozen on beta"),
    "who cannot see it does not": (owned(), SeenVserver(State.ERROR), "it is error on beta"),
    "who is starting it does not": (owned(), replace(COPY, busy=("start",)), "its start is under way on beta"),
    "who is thawing it does not": (owned(), replace(COPY, busy=("thaw",)), "its thaw is under way on beta"),
    "who is setting its tree aside does not": (
        owned(),
        replace(COPY, busy=("demote",)),
        "its demote is under way on beta",
    ),
    "who only receives it promises": (owned(), replace(COPY, busy=("ship gamma",)), ""),
    "who has promised it to the same host promises again": (owned(), BOUND, ""),
    "who has promised it to another host does not": (
        owned(),
        replace(COPY, bond=Bond("gamma", 6, NOW + 1)),
        "beta has promised it to gamma",
    ),
    "... until that is over": (owned(), replace(COPY, bond=Bond("gamma", 6, NOW)), ""),
    "who may have promised before it was booted does not": (
        owned(),
        replace(COPY, bond=Bond("", 0, NOW + 1)),
        "beta has only just begun",
    ),
}


@pytest.mark.parametrize("name", GIVER)
def test_giver(name: str) -> None:
    word, seen, expected = GIVER[name]
    assert refusal("beta", word, seen, "alpha", 7, NOW) == expected


LASTING: dict[str, tuple[Bond | None, Bond, Bond]] = {
    "the first promise is as it was given": (None, Bond("alpha", 7, NOW), Bond("alpha", 7, NOW)),
    "a newer one follows it": (Bond("alpha", 7, NOW), Bond("alpha", 7, NOW + 1), Bond("alpha", 7, NOW + 1)),
    "... and never ends before it": (Bond("alpha", 7, NOW + 1), Bond("alpha", 7, NOW), Bond("alpha", 7, NOW + 1)),
    "... whoever it was given to": (Bond("gamma", 6, NOW + 1), Bond("alpha", 7, NOW), Bond("alpha", 7, NOW + 1)),
}


@pytest.mark.parametrize("name", LASTING)
def test_lasting(name: str) -> None:
    known, new, expected = LASTING[name]
    assert lasting(known, new) == expected


# --- the holder: alpha owns v1, which beta and gamma may run, too -----------------------------------------------------


def asked(holder: Holder, now: float = NOW, word: Assignment | None = None) -> dict[str, Question]:
    return dict(holder.questions("alpha", {"v1": word or owned()}, TIMING, now))


def promise(question: Question, length_s: float = TIMING.promise_s) -> Answer:
    return Answer(question.number, length_s, tuple(question.epochs))


def after(*said: str) -> float:
    """The holder's end after rounds of questions a second apart; each says who answers it, and how."""
    holder, late = Holder(), []
    for number, answers in enumerate(said):
        questions = asked(holder, NOW + number)
        for word in answers.split():
            host, _, how = word.partition(":")
            answer = promise(questions[host], 0.5 if how == "short" else TIMING.promise_s)
            if how == "refused":
                answer = Answer(answer.number, answer.length_s, (), {"v1": "it is running"})
            if how == "late":
                late.append((host, answer))
                continue
            holder.heard(host if how != "stolen" else "gamma", answer)
            if how == "twice":
                holder.heard(host, replace(answer, length_s=50.0))
    for host, answer in late:
        holder.heard(host, answer)
    return holder.end("alpha", owned()) - NOW


HOLDER: dict[str, tuple[tuple[str, ...], float]] = {
    "no promise is no right": (("",), NEVER),
    "one of two is no right": (("beta",), NEVER),
    "all of them are one, counted from the sending": (("beta gamma",), RIGHT_S),
    "a refusal is none": (("beta gamma:refused",), NEVER),
    "the next answers extend it": (("beta gamma", "beta gamma"), 1 + RIGHT_S),
    "who does not answer any more ends it": (("beta gamma", "beta"), RIGHT_S),
    "a refusal does not take a promise back": (("beta gamma", "beta gamma:refused"), RIGHT_S),
    "the shortest promise counts": (("beta gamma:short",), TIMING.promised_s(0.5)),
    "an answer that comes late counts from its own question": (("beta gamma:late", "beta"), RIGHT_S),
    "an answer to an older question takes nothing back": (("beta gamma:late", "beta gamma"), 1 + RIGHT_S),
    "a second answer to a question counts for nothing": (("beta:twice gamma:twice",), RIGHT_S),
    "an answer counts only for the host that was asked": (("beta:stolen",), NEVER),
}


@pytest.mark.parametrize("name", HOLDER)
def test_holder(name: str) -> None:
    said, expected = HOLDER[name]
    assert after(*said) == pytest.approx(expected)


# name: (the word that alpha has, alpha's end)
HOSTS: dict[str, tuple[Assignment, float]] = {
    "who no other host may follow runs on for ever": (owned(hosts=("alpha",)), FOR_EVER),
    "a host that was added has to promise, too": (owned(hosts=("alpha", "beta", "delta")), NEVER),
    "a host that may not run it any more need not": (owned(hosts=("alpha", "beta")), RIGHT_S),
    "who may not run it has no right": (owned(hosts=("beta", "gamma")), NEVER),
    "a word of an older failover gives no right": (owned(hosts=()), NEVER),
}


@pytest.mark.parametrize("name", HOSTS)
def test_by_whose_promises(name: str) -> None:
    word, expected = HOSTS[name]
    holder = Holder()
    for host, question in asked(holder).items():
        holder.heard(host, promise(question))
    assert holder.end("alpha", word) - NOW == pytest.approx(expected)


def test_nobody_else_is_asked_than_who_may_run_it() -> None:
    assert set(asked(Holder())) == {"beta", "gamma"}
    assert not asked(Holder(), word=owned(hosts=("alpha",)))


def test_many_are_asked_for_in_several_questions_and_all_of_them_count() -> None:
    words = {f"v{number}": owned(vserver=f"v{number}", hosts=("alpha", "beta")) for number in range(2 * IN_ONE + 1)}
    holder = Holder()
    questions = holder.questions("alpha", words, TIMING, NOW)
    assert len(questions) == 3
    for host, question in questions:
        holder.heard(host, promise(question))
    assert {holder.end("alpha", word) for word in words.values()} == {NOW + RIGHT_S}


def test_an_answer_that_comes_after_the_promise_is_over_counts_for_nothing() -> None:
    holder = Holder()
    first = asked(holder)
    asked(holder, NOW + 2 * TIMING.promise_s)
    for host, question in first.items():
        holder.heard(host, promise(question))
    assert holder.end("alpha", owned()) == NEVER


# --- the clocks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("giver", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize("holder", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize(("slow", "fast"), [(0.995, 1.005), (1.0, 1.01), (0.99, 1.0)])
def test_s10_the_holder_has_stopped_before_the_giver_may_start(
    holder: Timing, giver: Timing, slow: float, fast: float
) -> None:
    """In the time of an honest clock from the sending, which is the hearing at best: the holder's clock is slow, the
    giver's fast. Their settings may differ: the answer has the length that was promised."""
    length_s = min(holder.promise_s, giver.promise_s)
    assert (holder.promised_s(length_s) + holder.freeze_s) / slow < length_s / fast
