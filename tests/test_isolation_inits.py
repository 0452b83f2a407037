"""Real inits as process 1: they boot, they are asked to stop in their own way, and what they run ends in order."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.isolation import build, cgroup, init, vserver
from agents.isolation.debian import Debian
from agents.isolation.record import Ended
from agents.isolation.vserver import Settings, execute
from failover.errors import Refused
from tests import trees
from tests.trees import busybox_tree, script, unique, wait_until

pytestmark = pytest.mark.needs("root", "busybox")

UNIT = """\
[Unit]
Description=tells that it was stopped in order
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo started >> /story'
ExecStop=/bin/sh -c 'sleep 0.2; echo stopped >> /story'
[Install]
WantedBy=multi-user.target
"""
SERVICE = (
    "trap 'sleep 0.2; echo stopped >> /story; exit 0' TERM\necho started >> /story\nwhile :; do sleep 1 & wait $!; done"
)


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    vservers = tmp_path_factory.mktemp("inits") / "vservers"
    vservers.mkdir(mode=0o700)
    yield build.build("debian", Debian(packages=("s6", "tini")), vservers=vservers)
    shutil.rmtree(vservers)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    with trees.spawner(tmp_path / "run"):
        yield tmp_path / "run"


@pytest.fixture
def tree(debian: Path) -> Path:
    (debian / "story").unlink(missing_ok=True)
    return debian


def story(tree: Path) -> str:
    return (tree / "story").read_text() if (tree / "story").exists() else ""


def _up(run: Path, name: str) -> bool:
    done = execute(name, ["systemctl", "is-system-running"], run=run, timeout_s=20)
    return done.stdout.decode().strip() in ("running", "degraded")


@pytest.mark.needs("debian")
def test_systemd_boots_and_stops_in_order(run: Path, tree: Path) -> None:
    (tree / "etc/systemd/system/story.service").write_text(UNIT)
    wanted = tree / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    (wanted / "story.service").symlink_to("../story.service")
    name = unique()
    vserver.start(Settings(name, tree), run=run)
    wait_until(lambda: story(tree) == "started\n", "the unit was started", timeout_s=60)

    wait_until(lambda: _up(run, name), "systemd is up", timeout_s=60)
    failed = execute(name, ["systemctl", "--failed", "--plain", "--no-legend"], run=run).stdout.decode()
    assert failed == ""
    ended = vserver.stop(name, timeout_s=60, run=run)
    assert (ended.ended, ended.because) == (Ended.STOPPED, "it was stopped")
    assert story(tree) == "started\nstopped\n"
    assert not cgroup.of(name).exists()


@pytest.mark.needs("debian")
def test_systemd_is_stopped_in_order_even_right_after_its_start(run: Path, tree: Path) -> None:
    """Before it has handlers the kernel drops every signal: the stop waits until it listens."""
    name = unique()
    vserver.start(Settings(name, tree), run=run)
    assert vserver.stop(name, timeout_s=60, run=run).ended is Ended.STOPPED


@pytest.mark.needs("debian")
def test_systemd_reboots_from_inside(run: Path, tree: Path) -> None:
    name = unique()
    vserver.start(Settings(name, tree), run=run)

    def asked() -> bool:
        return execute(name, ["systemctl", "reboot"], run=run, timeout_s=20).returncode == 0

    wait_until(asked, "it takes the command", timeout_s=60)
    wait_until(lambda: vserver.status(name, run=run).ended is Ended.RESTART, "it wants a restart", timeout_s=60)


@pytest.mark.needs("debian")
def test_systemd_goes_on_without_its_spawner_and_stops_in_order(tree: Path, tmp_path: Path) -> None:
    """Its console has hung up by then."""
    run, name = tmp_path / "other", unique()
    first = trees.start_spawner(run)
    vserver.start(Settings(name, tree), run=run)
    first.kill()
    first.wait()
    with trees.spawner(run):
        wait_until(lambda: _up(run, name), "systemd is up", timeout_s=60)
        assert vserver.stop(name, timeout_s=60, run=run).ended is Ended.STOPPED


@pytest.mark.needs("debian")
def test_sysvinit_is_asked_by_its_own_command(run: Path, tmp_path: Path) -> None:
    (tmp_path / "vservers").mkdir(mode=0o700)
    tree = build.build("sysv", Debian(packages=("sysvinit-core",)), vservers=tmp_path / "vservers")
    inittab = tree / "etc/inittab"
    inittab.write_text("st:0:wait:/bin/sh -c 'echo stopped >> /story'\n" + inittab.read_text())
    name = unique()
    vserver.start(Settings(name, tree), run=run)
    wait_until(lambda: execute(name, ["runlevel"], run=run, timeout_s=20).stdout == b"N 2\n", "it is up", timeout_s=60)
    assert vserver.stop(name, timeout_s=60, run=run).ended is Ended.STOPPED
    assert story(tree) == "stopped\n"
    shutil.rmtree(tree)


@pytest.mark.needs("debian")
def test_s6_stops_its_services_in_order(run: Path, tree: Path) -> None:
    service = tree / "etc/service/story"
    service.mkdir(parents=True)
    script(service / "run", SERVICE)
    name = unique()
    vserver.start(Settings(name, tree, init=("/bin/s6-svscan", "/etc/service")), run=run)
    wait_until(lambda: story(tree) == "started\n", "the service was started")
    assert vserver.stop(name, run=run).ended is Ended.STOPPED
    assert story(tree) == "started\nstopped\n"


@pytest.mark.needs("debian")
def test_tini_passes_the_signal_on(run: Path, tree: Path) -> None:
    script(tree / "service", SERVICE)
    name = unique()
    vserver.start(Settings(name, tree, init=("/usr/bin/tini", "--", "/service")), run=run)
    wait_until(lambda: story(tree) == "started\n", "the service was started")
    assert vserver.stop(name, run=run).ended is Ended.STOPPED
    assert story(tree) == "started\nstopped\n"


def test_busybox_init_powers_off(run: Path) -> None:
    name = unique()
    tree = busybox_tree(run.parent / name, "busybox")
    script(tree / "service", SERVICE)
    script(tree / "down", "echo down >> /story")
    (tree / "etc/inittab").write_text("::respawn:/service\n::shutdown:/down\n")
    vserver.start(Settings(name, tree), run=run)
    wait_until(lambda: story(tree) == "started\n", "the service was started")
    assert vserver.stop(name, run=run).ended is Ended.STOPPED
    assert "down" in story(tree)


def _binary(tree: Path, path: str) -> None:
    file = tree / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox", file)


FOUND: dict[str, tuple[dict[str, str], tuple[str, ...], str]] = {
    # files (path -> "binary", or a script, or "-> target")        asked for      found, kind
    "sysvinit": ({"/sbin/init": "binary"}, (), "/sbin/init sysvinit"),
    "a script of one's own": ({"/sbin/init": "#!/bin/sh"}, (), "/sbin/init other"),
    "systemd by the usual link": (
        {"/usr/lib/systemd/systemd": "binary", "/sbin/init": "-> ../usr/lib/systemd/systemd"},
        (),
        "/sbin/init systemd",
    ),
    "systemd by an absolute link": (
        {"/lib/systemd/systemd": "binary", "/sbin/init": "-> /lib/systemd/systemd"},
        (),
        "/sbin/init systemd",
    ),
    "systemd without a link": ({"/lib/systemd/systemd": "binary"}, (), "/lib/systemd/systemd systemd"),
    "runit": ({"/sbin/runit-init": "binary", "/sbin/init": "-> runit-init"}, (), "/sbin/init runit-init"),
    "openrc": ({"/sbin/openrc-init": "binary", "/sbin/init": "-> openrc-init"}, (), "/sbin/init openrc-init"),
    "busybox": ({"/bin/busybox": "binary", "/sbin/init": "-> /bin/busybox"}, (), "/sbin/init busybox"),
    "a busybox shell is no init": ({"/bin/busybox": "binary", "/bin/sh": "-> busybox"}, ("/bin/sh",), "/bin/sh other"),
    "s6 with its services": ({"/bin/s6-svscan": "binary"}, (), "/bin/s6-svscan s6-svscan"),
    "the one that was asked for": (
        {"/sbin/init": "binary", "/usr/bin/tini": "binary"},
        ("/usr/bin/tini", "--", "/x"),
        "/usr/bin/tini tini",
    ),
}


@pytest.mark.parametrize("case", FOUND)
def test_which_init_a_tree_has(tmp_path: Path, case: str) -> None:
    files, wanted, expected = FOUND[case]
    for path, what in files.items():
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        if what.startswith("-> "):
            file.symlink_to(what[3:])
        elif what == "binary":
            _binary(tmp_path, path)
        else:
            script(file, "")
    found = init.find(tmp_path, wanted)
    assert f"{found.argv[0]} {found.kind.name}" == expected


@pytest.mark.parametrize("wanted", ["init", "/no/init", "/etc"])
def test_an_init_that_cannot_be_is_refused(tmp_path: Path, wanted: str) -> None:
    (tmp_path / "etc").mkdir()
    with pytest.raises(Refused):
        init.find(tmp_path, (wanted,))
