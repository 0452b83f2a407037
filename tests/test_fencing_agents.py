"""Programs that speak as fence-agents do, really run: what counts as off, what they are told, and how they end."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from failover.errors import FailoverError
from failover.fencing import Ended, agents
from failover.fencing.agents import FenceAgents, with_secrets
from failover.model import Fence
from tests.conftest import FENCE_AGENTS

SWITCH = """#!/bin/sh
# A switched outlet: its state is a file.
while read -r line; do case "$line" in
  action=*) action=${line#action=};; state=*) state=${line#state=};; told=*) told=${line#told=};;
esac; [ -z "$told" ] || echo "$line" >> "$told"; done
[ -z "$told" ] || echo "argv: $* env: $(env | sort | tr '\\n' ' ')" >> "$told"
case "$action" in
  off) echo off > "$state"; echo "Success: Powered OFF";;
  status) [ "$(cat "$state")" = off ] && { echo "Status: OFF"; exit 2; }; echo "Status: ON";;
  *) exit 1;;
esac
"""
SLEEPS = "#!/bin/sh\nsleep 60 & echo $! > {place}/child; echo $$ > {place}/own; wait\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the agents of a test lie."""
    path = f"{tmp_path}:{agents.PATH}"
    monkeypatch.setattr(agents, "PATH", path)
    monkeypatch.setattr(agents, "ENVIRONMENT", {**agents.ENVIRONMENT, "PATH": path})
    (tmp_path / "state").write_text("on\n")
    return tmp_path


def program(place: Path, text: str, name: str = "fence_test") -> None:
    (place / name).write_text(text)
    (place / name).chmod(0o755)


Cut = Callable[..., Ended]


@pytest.fixture
def cut(place: Path) -> Iterator[Cut]:
    made: list[FenceAgents] = []

    def do(
        fence: Fence, deadline_s: float = 10.0, *, meanwhile: Callable[[FenceAgents], None] = lambda _: None
    ) -> Ended:
        over = threading.Event()
        devices = FenceAgents(over.set, deadline_s)
        made.append(devices)
        devices.cut("alpha", fence, 7.0)
        meanwhile(devices)
        assert over.wait(20)
        (ended,) = devices.ended()
        assert (ended.host, ended.began_at) == ("alpha", 7.0)
        assert devices.ended() == []
        return ended

    yield do
    for devices in made:
        devices.give_up()


def test_it_is_off_when_it_was_switched_off_and_its_status_says_so(place: Path, cut: Cut) -> None:
    program(place, SWITCH)
    assert cut(Fence("fence_test", {"state": str(place / "state")})) == Ended("alpha", 7.0, off=True)
    assert (place / "state").read_text() == "off\n"


def test_s16_secrets_go_to_stdin_and_nowhere_else(place: Path, cut: Cut) -> None:
    program(place, SWITCH)
    (place / "secret").write_text("geheim = ü\n")
    (place / "secret").chmod(0o600)
    options = {"state": str(place / "state"), "told": str(place / "told"), "password_file": str(place / "secret")}
    assert cut(Fence("fence_test", options)).off
    told = (place / "told").read_text()
    assert "password=geheim = ü\n" in told and "password_file" not in told
    assert all("geheim" not in line for line in told.splitlines() if line.startswith("argv:"))
    assert "argv:  env: HOME=/root LANG=C.UTF-8 LC_ALL=C.UTF-8 " in told


FAILS = {
    "off that fails": ("echo 'Failed: no route' >&2; exit 1", "action=off ended with 1: Failed: no route"),
    "off that is not known": ("exit 2", "action=off ended with 2"),
    "a status that says on": ("exit 0", "it says that the host is on, after it was switched off"),
    "a status that fails": (
        "grep -q action=status && { echo 'Connection timed out'; exit 1; }; exit 0",
        "action=status ended with 1: Connection timed out",
    ),
    "one that is killed": ("kill -9 $$", "action=off ended with -9"),
    "one that reads nothing": ("exec <&-; exit 3", "action=off ended with 3"),
}  # fmt: skip


@pytest.mark.parametrize(("script", "because"), FAILS.values(), ids=FAILS.keys())
def test_s16_nothing_else_is_a_success(place: Path, cut: Cut, script: str, because: str) -> None:
    program(place, f"#!/bin/sh\n{script}\n")
    assert cut(Fence("fence_test")) == Ended("alpha", 7.0, off=False, because=because)


def test_of_what_it_says_only_the_end_is_kept_and_no_secret(place: Path, cut: Cut) -> None:
    program(place, "#!/bin/sh\nyes 'much' | head -c 1000000; echo; echo 'login with geheim failed'; exit 1\n")
    (place / "secret").write_text("geheim")
    (place / "secret").chmod(0o600)
    because = cut(Fence("fence_test", {"password_file": str(place / "secret")})).because
    assert because == "action=off ended with 1: much | much | login with … failed".replace(
        "much | much |", "much | mu |"
    ) or (because.endswith("login with … failed") and len(because) < agents.KEPT)
    assert "geheim" not in because


def test_what_it_says_is_shown_on_one_short_line_that_no_terminal_obeys(place: Path, cut: Cut) -> None:
    program(place, "#!/bin/sh\nprintf '\\033[2Jno\\troute\\n'; head -c 1500 /dev/zero | tr '\\0' x; exit 1\n")
    because = cut(Fence("fence_test")).because
    assert because.isprintable() and len(because) < agents.SHOWN + 50
    program(place, "#!/bin/sh\nprintf '\\033[2Jno\\troute\\n'; exit 1\n")
    assert cut(Fence("fence_test")).because == "action=off ended with 1:  [2Jno route"


def gone(place: Path, name: str) -> bool:
    """A process that waits to be reaped by somebody is gone, too."""
    try:
        state = Path(f"/proc/{(place / name).read_text().strip()}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def assert_all_gone(place: Path) -> None:
    ends_at = time.monotonic() + 5
    while not (gone(place, "own") and gone(place, "child")):
        assert time.monotonic() < ends_at, "it runs on"
        time.sleep(0.01)


def test_at_its_deadline_it_is_killed_with_all_that_it_has_started(place: Path, cut: Cut) -> None:
    program(place, SLEEPS.format(place=place))
    began = time.monotonic()
    assert cut(Fence("fence_test"), 0.5).because == "it did not end within 0.5 s"
    assert time.monotonic() < began + 5
    assert_all_gone(place)


def test_when_it_is_given_up_too(place: Path, cut: Cut) -> None:
    program(place, SLEEPS.format(place=place))

    def give_up(devices: FenceAgents) -> None:
        while not (place / "own").exists() or not (place / "own").read_text():
            time.sleep(0.01)
        devices.give_up("beta")
        devices.give_up("alpha")

    assert cut(Fence("fence_test"), 30.0, meanwhile=give_up).because == "it has renewed its lease"
    assert_all_gone(place)


def test_what_it_leaves_behind_is_killed_and_not_waited_for(place: Path, cut: Cut) -> None:
    leave = f"sleep 60 & echo $! > {place}/child; echo $$ > {place}/own"
    program(place, f"#!/bin/sh\n{leave}; grep -q action=status && exit 2; exit 0\n")
    began = time.monotonic()
    assert cut(Fence("fence_test"), 30.0).off
    assert time.monotonic() < began + 5
    assert_all_gone(place)


def test_an_attempt_takes_the_place_of_the_one_before(place: Path) -> None:
    program(place, SLEEPS.format(place=place))
    program(place, SWITCH, "fence_switch")
    devices = FenceAgents(deadline_s=30.0)
    devices.cut("alpha", Fence("fence_test"), 1.0)
    devices.cut("alpha", Fence("fence_switch", {"state": str(place / "state")}), 2.0)
    found: list[Ended] = []
    ends_at = time.monotonic() + 10
    while len(found) < 2 and time.monotonic() < ends_at:
        found += devices.ended()
        time.sleep(0.01)
    assert {ended.began_at: ended.off for ended in found} == {1.0: False, 2.0: True}


def test_an_agent_that_is_not_there_is_told(cut: Cut) -> None:
    assert cut(Fence("fence_nobody")).because == "it is not installed on this host: apt-get install fence-agents"


def test_no_descriptor_is_left_open(place: Path, cut: Cut) -> None:
    program(place, SWITCH)
    fence = Fence("fence_test", {"state": str(place / "state")})
    cut(fence)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        cut(fence)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


SECRETS = {
    "one that others can read": (0o640, b"geheim\n", r"can be read by others than its owner.*chmod 600"),
    "two lines": (0o600, b"ge\nheim\n", "is not one line of text"),
    "nothing": (0o600, b"\n", "is not one line of text"),
    "no text": (0o600, b"\xff\xfe", "cannot be read .it is not text."),
    "far too much": (0o600, b"x" * 5000, "is not one line of text"),
}


@pytest.mark.parametrize(("mode", "content", "says"), SECRETS.values(), ids=SECRETS.keys())
def test_a_secret_that_is_none_is_refused_without_telling_it(
    tmp_path: Path, mode: int, content: bytes, says: str
) -> None:
    (tmp_path / "secret").write_bytes(content)
    (tmp_path / "secret").chmod(mode)
    with pytest.raises(FailoverError, match=says) as refused:
        with_secrets({"password_file": str(tmp_path / "secret")})
    assert "heim" not in str(refused.value)


def test_a_secret_that_is_not_there_is_told() -> None:
    with pytest.raises(FailoverError, match=r"/nowhere/secret cannot be read .No such file"):
        with_secrets({"password_file": "/nowhere/secret"})


def test_what_is_no_secret_stays_as_it_is() -> None:
    options = {"ip": "10.0.9.1", "identity_file": "/root/id"}
    assert with_secrets(options) == options


# --- the real ones ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's fence-agents, unpacked and not installed: they would bring along 97 MB for some clouds."""
    there = tmp_path_factory.mktemp("debian")
    for package in FENCE_AGENTS.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, there], check=True)
    (there / "pycurl.py").write_text("# for who asks web services\n")
    return there


def real(place: Path, debian: Path, name: str) -> Fence:
    modules = f"{debian}:{debian}/usr/share/fence:{debian}/usr/lib/python3/dist-packages"
    program(place, f"#!/bin/sh\nPYTHONPATH={modules} exec /usr/bin/python3 {debian}/usr/sbin/{name}\n", name)
    return Fence(name, {"status_file": str(place / "status")})


@pytest.mark.needs("fence-agents")
def test_an_agent_of_debian_cuts_the_power(place: Path, debian: Path, cut: Cut) -> None:
    """fence_dummy has all that the others have, but a device: its power is a file."""
    (place / "status").write_text("on")
    assert cut(real(place, debian, "fence_dummy")) == Ended("alpha", 7.0, off=True)
    assert (place / "status").read_text() == "off"
    assert cut(real(place, debian, "fence_dummy")).off, "once more harms nothing"


@pytest.mark.needs("fence-agents")
def test_an_agent_of_debian_that_fails_says_why(place: Path, debian: Path, cut: Cut) -> None:
    real(place, debian, "fence_apc")
    ended = cut(Fence("fence_apc", {"ip": "127.0.0.1", "username": "apc", "password": "apc"}))
    assert not ended.off
    assert ended.because.startswith("action=off ended with 1: ") and "enter plug number" in ended.because
