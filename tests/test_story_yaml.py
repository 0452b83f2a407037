"""What a story may have that a cluster.yaml may not: anchors, and what has no function yet. Row names: policy."""

from __future__ import annotations

import pytest

from failover.model import Sync
from tests.test_story import problems, text, told


def cluster(vservers: str, above: str = "", of_h1: str = "{}") -> str:
    return f"{{{above}hosts: {{h1: {of_h1}, h2: {{}}}}, vservers: {{{vservers}}}}}"


ALIASES = {
    "an alias stands for what is at its anchor": "vA: &v {primary: h1, backups: [h2]}, vB: *v",
    "<< lays keys under": "vA: &v {primary: h2, backups: []}, vB: {<<: *v, primary: h1, backups: [h2]}",
    "... of several groups, the first of them first": (
        "vA: &v {primary: h1, backups: []}, vC: &w {primary: h2, backups: []}, vB: {<<: [*v, *w], backups: [h2]}"
    ),
}


@pytest.mark.parametrize("vservers", ALIASES.values(), ids=ALIASES.keys())
def test_a_story_may_have_aliases(vservers: str) -> None:
    vserver = told(cluster=cluster(vservers)).cluster.vservers["vB"]
    assert (vserver.primary, vserver.backups) == ("h1", ("h2",))


BOMB = "[&a0 [x, x], " + ", ".join(f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)) + "]"
DEEP = "[&a0 [x], " + ", ".join(f"&a{n} [[[[[[[*a{n - 1}]]]]]]]" for n in range(1, 9)) + "]"
BAD_ALIASES = {
    "an alias without an anchor": ("[*v]", "*v stands for nothing: write &v before it"),
    "one that holds itself": ("&v [*v]", "*v stands for nothing: write &v before it"),
    "many that stand for many": (BOMB, "aliases (*) stand for too much here: write the value itself"),
    "many that stand one in another": (DEEP, "aliases (*) stand for too much here: write the value itself"),
    "<< of what is no group": ("{<<: &v [x]}", "<< takes groups of keys only: as in <<: *anchor"),
}


@pytest.mark.parametrize(("events", "advice"), BAD_ALIASES.values(), ids=BAD_ALIASES.keys())
def test_a_bad_alias_is_told(events: str, advice: str) -> None:
    assert problems(text(events=events))[0].advice == advice


def test_a_cluster_file_has_no_aliases_also_when_it_is_played() -> None:
    source = "hosts: {h1: &h {}, h2: *h}\nvservers: {vA: {primary: h1, backups: [h2]}}\n"
    assert problems(source)[0].message == "an alias (*) is not understood"


def test_what_has_no_function_yet_may_be_said_where_nothing_played_depends_on_it() -> None:
    moot = "sync: {every: continuous, window: 200ms, bandwidth: 5M/s}, limits: {processes: 500}, conf: v1.conf"
    said = cluster(
        f"vA: {{primary: h1, backups: [h2], {moot}}}",
        above="notify: [{command: [/bin/page]}], ",
        of_h1="{fence: {agent: fence_ipmilan}}",
    )
    assert told(cluster=said).cluster.vservers["vA"].sync == Sync(bandwidth_bytes_s=5 * 2**20)


@pytest.mark.parametrize("said", ["sync: block", "sync: {every: '0 3 * * *'}"])
def test_what_would_be_played_otherwise_is_refused(said: str) -> None:
    (problem,) = problems(text(cluster=cluster(f"vA: {{primary: h1, backups: [h2], {said}}}")))
    assert "is not supported yet" in problem.message


def test_what_is_wrong_is_told_although_it_has_no_function_yet() -> None:
    (problem,) = problems(text(cluster=cluster("vA: {primary: h1, backups: [h2], limits: {proceses: 1}}")))
    assert problem.advice == "is not a key that is known here (did you mean processes?)"
