"""Debian trees: where they come from, what is cleaned out of them, the cache, and what is said when it cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.command import CommandFailed
from agents.isolation import bootstrap
from agents.isolation.bootstrap import Source
from agents.isolation.build import CACHE, Debian, Method, build
from failover.errors import BadInput, FailoverError, Unreachable
from tests.test_build import left, run

pytestmark = pytest.mark.needs("root", "debian")

ROOT = Path(__file__).parent.parent
PACKAGES = ("openssh-server",)  # a daemon with keys of its own


@pytest.fixture
def vservers(tmp_path: Path) -> Path:
    return tmp_path / "vservers"


MAIN = Source("http://archive/debian", "bookworm")
UPDATES = Source("http://archive/debian", "bookworm-updates")
SECURITY = Source("http://security/debian", "bookworm-security")
VENDOR = Source("http://vendor/apt", "bookworm", ("stable",), origin="Docker")  # a release of the same name
HOST = (VENDOR, MAIN, Source("http://vendor/apt", "stable", origin="Vendor"), UPDATES, SECURITY)

SOURCES = {
    "the host's own release comes as the host has it": ("bookworm", (MAIN, UPDATES, SECURITY)),
    "another release comes from the same archives": (
        "trixie",
        (
            Source("http://archive/debian", "trixie"),
            Source("http://archive/debian", "trixie-updates"),
            Source("http://security/debian", "trixie-security"),
        ),
    ),
    "a rolling suite has no updates and no security": ("sid", (Source("http://archive/debian", "sid"),)),
}


@pytest.mark.parametrize("case", SOURCES)
def test_sources(case: str) -> None:
    suite, expected = SOURCES[case]
    assert bootstrap.translated(suite, HOST, "bookworm") == expected


UNTOLD = Source("http://archive/debian", "bookworm", origin="")
ORIGINS: dict[str, tuple[tuple[Source, ...], tuple[Source, ...]]] = {
    "what is not Debian's is left out": ((VENDOR,), ()),
    "what apt has not looked at may be Debian's": ((UNTOLD, VENDOR), (MAIN,)),
    "but not if Debian's is known": ((Source("http://new/apt", "bookworm", origin=""), MAIN), (MAIN,)),
}


@pytest.mark.parametrize("case", ORIGINS)
def test_origins(case: str) -> None:
    host, expected = ORIGINS[case]
    assert bootstrap.translated("bookworm", host, "bookworm") == expected


def test_components_of_one_release_stand_together() -> None:
    text = "http://a/|bookworm|main|Debian\nhttp://a/|bookworm|contrib|Debian\nhttp://b/|x|main|$(ORIGIN)\n"
    text += "http://c/|bookworm|stable|Docker\n"
    assert [(s.uri, s.release, s.components, s.origin) for s in bootstrap.listed(text)] == [
        ("http://a/", "bookworm", ("main", "contrib"), "Debian"),
        ("http://b/", "x", ("main",), ""),
        ("http://c/", "bookworm", ("stable",), "Docker"),
    ]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Debian tree, from the network the first time on this machine, then from the cache."""
    vservers = tmp_path_factory.mktemp("debian")
    yield build("first", Debian(packages=PACKAGES), vservers=vservers)
    shutil.rmtree(vservers)


def test_a_debian_tree_keeps_nothing_of_this_host(first: Path) -> None:
    assert (first / "etc/hostname").read_text() == "first\n"
    assert (first / "etc/machine-id").read_text() == ""
    for gone in ("etc/resolv.conf", "usr/sbin/policy-rc.d", "etc/apt/apt.conf.d/99mmdebstrap"):
        assert not os.path.lexists(first / gone), gone
    assert "root@first" in (first / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    assert (first / "etc/systemd/system/systemd-networkd.service").readlink() == Path("/dev/null")
    assert os.uname().nodename not in run("chroot", first, "cat", "/etc/hosts", "/etc/hostname").split()
    assert run("chroot", first, "dpkg", "--audit") == ""


def test_the_second_needs_no_network_and_shares_no_secret(first: Path, vservers: Path) -> None:
    code = f"""
from pathlib import Path
from agents.isolation.build import *
build("second", Debian(packages={PACKAGES!r}), vservers=Path({str(vservers)!r}), say=print)
"""
    said = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert "from the cache" in said and "bootstrapping" not in said
    key = "etc/ssh/ssh_host_ed25519_key"
    assert (vservers / "second" / key).read_bytes() != (first / key).read_bytes()
    assert (vservers / "second/etc/hostname").read_text() == "second\n"


def test_a_damaged_cache_is_noticed_and_not_trusted(first: Path, vservers: Path, tmp_path: Path) -> None:
    method = Debian(packages=PACKAGES, mirror="file:///var/empty")
    good = method.cached(CACHE)
    (tmp_path / good.name).write_bytes(good.read_bytes()[:-100_000])
    said: list[str] = []
    with pytest.raises(BadInput, match="the archive has no suite 'bookworm'"):
        build("v1", method, vservers=vservers, cache=tmp_path, say=said.append)
    assert any("building it anew" in line for line in said)
    assert left(vservers) == [] and not (tmp_path / good.name).exists()


def test_a_cache_that_is_prepared_already_is_left_as_it_is(first: Path) -> None:
    said: list[str] = []
    Debian(packages=PACKAGES).prepare(CACHE, said.append)
    assert said == []


def test_a_preparation_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o755)
    with pytest.raises(BadInput, match="no suite 'nosuch'"):
        Debian(suite="nosuch", mirror="file:///var/empty").prepare(tmp_path / "cache", print)
    assert left(tmp_path / "cache") == []
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700  # whole trees lie there, with setuid files


WRONG: dict[str, tuple[Method, type[FailoverError], str]] = {
    "an unknown suite": (Debian(suite="nosuch", mirror="file:///var/empty"), BadInput, "no suite 'nosuch'"),
    "no archive that answers": (Debian(mirror="http://127.0.0.1:9/"), Unreachable, "Could not connect to 127.0.0.1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_bootstrap_that_cannot_be_is_said_in_one_line(vservers: Path, tmp_path: Path, case: str) -> None:
    method, error, says = WRONG[case]
    with pytest.raises(error) as refused:
        build("v1", method, vservers=vservers, cache=tmp_path / "cache")
    assert says in refused.value.message and "\n" not in refused.value.message and refused.value.hint
    assert left(vservers) == [] and left(tmp_path / "cache") == []


@pytest.mark.parametrize("word", ["", "--hook", "a b", "../x", "a,b"])
def test_a_package_name_is_not_an_option(word: str) -> None:
    with pytest.raises(BadInput, match="no name of a Debian suite or package"):
        Debian(packages=(word,))


SAID = {
    "an unknown package": ("E: Unable to locate package nope", BadInput, "has no package 'nope'"),
    "an unknown package (debootstrap)": ("E: Couldn't find these debs: nope", BadInput, "has no package 'nope'"),
    "an unknown suite (debootstrap)": ("E: No such script: /usr/share/debootstrap/scripts/x", BadInput, "no suite"),
    "no archive (debootstrap)": ("E: Failed getting release file http://a/Release", Unreachable, "http://a/Release"),
    "no name server": ("Err:1 | Could not resolve 'archive'", Unreachable, "Could not resolve 'archive'"),
    "something else": ("E: dpkg was interrupted", CommandFailed, "it failed"),
}


@pytest.mark.parametrize("case", SAID)
def test_what_the_tools_print_is_explained(case: str) -> None:
    said, error, says = SAID[case]
    explained = bootstrap.explained(CommandFailed("it failed", returncode=1, stderr=said), "bookworm")
    assert type(explained) is error and says in explained.message
