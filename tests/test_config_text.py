"""The text of cluster.yaml: places in it, files that are none, YAML that is broken, and anything at all."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from failover.config import BadConfig, load, parse
from failover.errors import BadInput
from tests.test_config import text
from tests.test_config_schema import EXAMPLE, WHOLE


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    source = """\
cluster: prod
zookeeper: {servers: [10.0.0.1:2181]}
hosts:
  alpha: {address: 10.0.0.1}
  gamma: {address: 10.0.0.3}
vservers:
  web1: {primary: alpha, backups: [gamma], addresses: 10.0.0.5/24}
  db1:
    primary: alpha
    backups: [gama]
    addresses: [10.0.0.5/24]
  old:
    primary: gamma
"""
    with pytest.raises(BadConfig) as caught:
        parse(source, "/etc/failover/cluster.yaml")
    assert (
        str(caught.value)
        == """\
/etc/failover/cluster.yaml has 3 problems
  line 10, column 15  vservers.db1.backups    'gama' is not under hosts (did you mean gamma?)
  line 11, column 17  vservers.db1.addresses  10.0.0.5 already belongs to web1 (line 7): give each its own
  line 12, column 3   vservers.old.backups    is missing: name a backup or say backups: []"""
    )
    assert caught.value.exit_code == BadInput.exit_code == 2


def test_one_problem_is_one_line() -> None:
    with pytest.raises(BadConfig) as caught:
        parse(text(timing="fasst"))
    told = "timing  'fasst' is not one of fast, normal, patient (did you mean fast?)"
    assert str(caught.value) == f"cluster.yaml: line 5, column 9  {told}"


SHARE = "write the value itself; what all vservers share belongs under defaults"

NOT_YAML = {
    "an empty text": ("", " is empty: begin with cluster.yaml.example"),
    "a text of comments": ("# later\n", " is empty: begin with cluster.yaml.example"),
    "a list": ("- a\n", ": line 1, column 1  begins with no key: begin with cluster: and a name"),
    "a word": ("prod", ": line 1, column 1  begins with no key: begin with cluster: and a name"),
    "a tab": ("hosts:\n\talpha: {}", ": line 2, column 1  a tab cannot be used here: indent with spaces"),
    "an open quote": (
        "a: b\nc: 'd\ne: f\n",
        ": line 4, column 1  the quote that opens on line 2 is never closed: close it",
    ),
    "an open list": (
        "a: [b,\n  c\nd: e",
        ": line 3, column 2  the [ of line 1 is not closed, or lacks a comma before this: close it with ]",
    ),
    "an open group": (
        "a: {b: c",
        ": line 1, column 9  the { of line 1 is not closed, or lacks a comma before this: close it with }",
    ),
    "a colon too many": (
        "a: b: c",
        ": line 1, column 5  a colon cannot stand here: check the indentation, or put the text in quotes",
    ),
    "a wrong indentation": (
        "a:\n  b: c\n d: e",
        ": line 3, column 2  this does not fit the indentation that began on line 1: align it",
    ),
    "a key without colon": (
        "cluster: prod\nhosts\n  a: {}\n",
        ": line 3, column 4  the key on line 2 has no colon: write it as key: value",
    ),
    "a key twice": (
        "cluster: a\ncluster: b",
        ": line 2, column 1  the key 'cluster' is there twice (first on line 1): keep one",
    ),
    "a template not filled in": (
        "a: {{ b }}",
        ": line 1, column 5  a list or a group cannot be a key (is there a { or [ too many?)",
    ),
    "an anchor that holds itself": ("a: &x [*x]", f": line 1, column 8  an alias (*) is not understood: {SHARE}"),
    "a merge key": ("a: {<<: b}", f": line 1, column 5  << is not understood: {SHARE}"),
    "a tag": ("a: !!int 5", ": line 1, column 4  the tag 'tag:yaml.org,2002:int' is not understood: leave it out"),
    "two documents": (
        "a: b\n---\nc: d",
        ": line 2, column 1  a second document begins here: keep one, and remove the line ---",
    ),
    "a NUL": ("a: b\nc: \0", ": line 2, column 4  the character 0x0000 belongs in no text (is it a binary file?)"),
    "half a character": (
        "a: \ud800",
        ": line 1, column 4  the character 0xd800 belongs in no text (is it a binary file?)",
    ),
    "brackets without end": (
        "[" * 100_000,
        ": line 1, column 41  more than 40 levels deep (is a bracket not closed?)",
    ),
}


@pytest.mark.parametrize(("source", "told"), NOT_YAML.values(), ids=NOT_YAML.keys())
def test_what_is_not_yaml_is_told_in_one_line(source: str, told: str) -> None:
    with pytest.raises(BadConfig) as caught:
        parse(source)
    assert str(caught.value) == f"cluster.yaml{told}"


FILES = {
    "latin1": (b"cluster: prod\nhosts: {caf\xe9: {}}", "{}: line 2, column 12  is not UTF-8 text: save it as UTF-8"),
    "utf-16": ("cluster: prod".encode("utf-16"), "{}: line 1, column 1  is not UTF-8 text: save it as UTF-8"),
    "too large": (b"#" * 1_000_000, "{} is larger than 400 kB, more than ZooKeeper keeps in one record"),
}


@pytest.mark.parametrize(("data", "told"), FILES.values(), ids=FILES.keys())
def test_a_file_that_is_no_text(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(data)
    with pytest.raises(BadConfig) as caught:
        load(path)
    assert str(caught.value) == told.replace("{}", str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"x\.yaml is not there: begin with cluster\.yaml\.example$"):
        load(tmp_path / "x.yaml")
    with pytest.raises(BadConfig, match=r"is a directory: name the file in it$"):
        load(tmp_path)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(BadConfig, match=r"loop cannot be read \(Too many levels of symbolic links\)$"):
        load(loop)


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert parse("\ufeff" + text()) == parse(text())


def test_nothing_of_the_file_is_obeyed_by_the_terminal() -> None:
    with pytest.raises(BadConfig) as caught:
        parse(text(timing='"a\\e[2J\\nb"', **{'"k\\e[0m"': "x"}))
    assert all(line.isprintable() for line in str(caught.value).splitlines())
    assert len(str(caught.value).splitlines()) == 1 + len(caught.value.problems)


# --- anything at all --------------------------------------------------------------------------------------------------

_JUNK = [
    *"{}[]:,-#&*!|>'\"%@`?~ \t\n\0\ud800é→0123456789ms/.<",
    *("null", "!!int ", "---\n", "\r\n", "\u2028", "\x85", "\x1b", "<<: "),
]


def _mutated(source: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(source))
        length = rng.randint(0, 12)
        junk = "".join(rng.choice(_JUNK) for _ in range(rng.randint(0, 3)))
        kind = rng.randrange(5)
        if kind == 0:
            source = source[:at]
        elif kind == 1:
            source = source[:at] + junk + source[at + length :]
        elif kind == 2:
            source = source[:at] + source[at : at + length] * 2 + source[at + length :]
        elif kind == 3:
            lines = source.splitlines(keepends=True)
            rng.shuffle(lines)
            source = "".join(lines)
        else:
            other = rng.randrange(len(source))
            source = source[:at] + source[other : other + 40] + source[at + length :]
        source = source or "x"
    return source


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_written_the_answer_is_a_cluster_or_bad_config(seed: int) -> None:
    rng = random.Random(seed)
    sources = (EXAMPLE.read_text(), WHOLE)
    for _ in range(60):
        source = _mutated(rng.choice(sources), rng)
        for story in (False, True):
            try:
                cluster = parse(source, story=story)
            except BadConfig as bad:
                assert bad.problems
                assert all(line.isprintable() for line in str(bad).splitlines())
                assert len(str(bad).splitlines()) in (1, 1 + len(bad.problems))
            else:
                assert set(cluster.hosts) >= {host for vserver in cluster.vservers.values() for host in vserver.hosts}
