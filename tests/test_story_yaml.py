"""What a story may have that a cluster.yaml may not: anchors. Row names: policy."""

from __future__ import annotations

import pytest

from tests.test_story import problems, text, told


def cluster(vservers: str) -> str:
    return f"{{hosts: {{h1: {{}}, h2: {{}}}}, vservers: {{{vservers}}}}}"


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
