"""What root inside a vserver sees and may do, asked from inside; and trees that try to lead the start astray."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.isolation import capabilities, cgroup, vserver
from agents.isolation.vserver import Settings
from failover.errors import Refused
from failover.model import State
from tests import trees
from tests.trees import busybox_tree, script, unique

pytestmark = pytest.mark.needs("root", "busybox")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    run = tmp_path_factory.mktemp("walls") / "run"
    with trees.spawner(run):
        yield run


@pytest.fixture(scope="module")
def name(run: Path) -> str:
    """One that writes down what its init sees, then idles."""
    name = unique()
    probe = "cat /proc/self/status > /status; env > /environment; "
    tree = busybox_tree(run.parent / name, probe + "echo hello console; " + trees.IDLE)
    vserver.start(Settings(name, tree, hostname="web1.example"), run=run)
    trees.wait_until(lambda: (tree / "environment").exists() and (tree / "environment").read_text(), "it has looked")
    return name


def inside(run: Path, name: str, script: str) -> str:
    done = vserver.execute(name, ["sh", "-c", script], run=run, timeout_s=20)
    return (done.stdout + done.stderr).decode().strip()


def status_lines(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@pytest.mark.parametrize("whose", ["the init's", "a program's that entered"])
def test_capabilities_seccomp_and_signals(run: Path, name: str, whose: str) -> None:
    init = (run.parent / name / "status").read_text()
    status = status_lines(init if whose == "the init's" else inside(run, name, "cat /proc/self/status"))
    kept = f"{capabilities.KEPT_MASK:016x}"
    assert {key: status[f"Cap{key}"] for key in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {
        "Inh": "0" * 16, "Prm": kept, "Eff": kept, "Bnd": kept, "Amb": "0" * 16,
    }  # fmt: skip
    assert status["Seccomp"] == "2"
    assert status["SigBlk"] == "0" * 16 and int(status["SigIgn"], 16) & (1 << signal.SIGPIPE - 1) == 0
    assert status["Umask"] == "0022"


def test_the_init_has_no_descriptor_of_the_host(run: Path, name: str) -> None:
    listed = inside(run, name, "ls -l /proc/1/fd").splitlines()
    targets = {line.split(" -> ")[1] for line in listed if " -> " in line}
    assert "/dev/pts/0" in targets and targets <= {"/dev/pts/0", "/sbin/init"}


def test_the_environment_comes_from_nothing(run: Path, name: str) -> None:
    found = (run.parent / name / "environment").read_text()
    keys = {line.split("=")[0] for line in found.splitlines()}
    assert keys <= {"PATH", "HOME", "TERM", "container", "PWD", "SHLVL", "OLDPWD"}


def test_it_sees_only_its_own_processes(run: Path, name: str) -> None:
    pids = inside(run, name, "cd /proc; echo [0-9]*").split()
    assert "1" in pids and len(pids) < 8


def test_it_has_its_own_name_and_the_host_keeps_its_own(run: Path, name: str) -> None:
    before = os.uname().nodename
    assert inside(run, name, "hostname") == "web1.example"
    inside(run, name, "hostname other")
    assert inside(run, name, "hostname") == "web1.example"
    assert os.uname().nodename == before


def test_no_mount_of_the_host_is_left(run: Path, name: str) -> None:
    points = {line.split()[4] for line in inside(run, name, "cat /proc/self/mountinfo").splitlines()}
    ours = ("/proc", "/sys", "/dev", "/run", "/tmp")
    assert points - {"/"} == {point for point in points if point.startswith(ours)}


def test_its_cgroup_is_the_root_it_sees(run: Path, name: str) -> None:
    assert set(inside(run, name, "cut -d: -f3 /proc/self/cgroup").split()) == {"/"}
    assert inside(run, name, "mkdir /sys/fs/cgroup/mine && rmdir /sys/fs/cgroup/mine && echo made") == "made"
    assert inside(run, name, "ls /sys/fs/cgroup/../cgroup.kill").endswith("No such file or directory")


def test_its_network_is_its_own(run: Path, name: str) -> None:
    assert inside(run, name, "ls /sys/class/net") == "lo"


REFUSED = {
    "mount": "mount -t tmpfs none /var",
    "unmount": "umount /proc/kcore /proc/keys",
    "remount proc/sys writable": "mount -o remount,rw /proc/sys",
    "write a sysctl": "echo 1 > /proc/sys/kernel/panic",
    "make a block device": "mknod /var/disk b 254 0",
    "make a device node in /dev": "mknod /dev/disk b 254 0",
    "load a module": "insmod /bin/busybox",
    "set the clock": "date -s 2001-01-01 2>&1 | grep -v 'not permitted' | grep -q error",
    "press a magic key": "echo b > /proc/sysrq-trigger",
    "read the kernel's log": "dmesg | grep .",
    "a user namespace": "unshare -U true",
    "a mount namespace": "unshare -m true",
    "configure the network": "ip link set lo down",
    "swap": "swapoff -a; swapon /bin/busybox",
    "write its own limits": "echo 1 > /sys/fs/cgroup/../cgroup.freeze",
    "lower its niceness": "nice -n -5 true 2>&1 | grep . && false",
}


@pytest.mark.parametrize("what", REFUSED)
def test_root_inside_may_not(run: Path, name: str, what: str) -> None:
    assert vserver.execute(name, ["sh", "-c", REFUSED[what]], run=run, timeout_s=20).returncode != 0


def test_masked_files_are_empty(run: Path, name: str) -> None:
    assert inside(run, name, "cat /proc/kallsyms /proc/keys /proc/timer_list; ls /sys/firmware /proc/acpi") == (
        "/proc/acpi:\n\n/sys/firmware:"
    )


@pytest.mark.parametrize("way", ["/../../..", "/proc/1/root/..", "/proc/1/cwd/../..", "/proc/self/root/.."])
def test_no_way_up_leads_out(run: Path, name: str, way: str) -> None:
    tree = {path.name for path in (run.parent / name).iterdir()}
    assert set(inside(run, name, f"ls {way}").split()) == tree


def test_the_console_is_logged(run: Path, name: str) -> None:
    log = run / name / "console.log"
    trees.wait_until(lambda: log.exists() and "hello console" in log.read_text(), "the console is logged")


def test_two_do_not_see_each_other(run: Path, name: str) -> None:
    other = unique()
    vserver.start(Settings(other, busybox_tree(run.parent / other, "sleep 987 & " + trees.IDLE)), run=run)
    assert "987" not in inside(run, name, "ps")
    assert "987" in inside(run, other, "ps")
    spaces = "for n in pid mnt uts ipc net cgroup; do readlink /proc/self/ns/$n; done"
    ours = {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("pid", "mnt", "uts", "ipc", "net", "cgroup")}
    assert len({*inside(run, name, spaces).split(), *inside(run, other, spaces).split(), *ours}) == 18
    vserver.stop(other, run=run)


def test_the_network_namespace_that_was_prepared_is_used(run: Path) -> None:
    name = unique()
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "add", "probe0", "type", "veth", "peer", "probe1"], check=True)
        tree = busybox_tree(run.parent / name)
        vserver.start(Settings(name, tree, netns=Path(f"/run/netns/{name}")), run=run)
        assert inside(run, name, "ls /sys/class/net").split() == ["lo", "probe0", "probe1"]
        vserver.stop(name, run=run)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


# --- trees that are wrong or evil -------------------------------------------------------------------------------------


def _link(directory: str, to: str) -> object:
    def change(tree: Path) -> None:
        (tree / directory).rmdir()
        (tree / directory).symlink_to(to)

    return change


def _file(tree: Path) -> None:
    (tree / "proc").rmdir()
    (tree / "proc").write_text("")


def _no_init(tree: Path) -> None:
    (tree / "sbin/init").unlink()


def _plain_init(tree: Path) -> None:
    (tree / "sbin/init").chmod(0o644)


def _directory_init(tree: Path) -> None:
    (tree / "sbin/init").unlink()
    (tree / "sbin/init").mkdir()


def _escaping_init(tree: Path) -> None:
    """A file of that name is there on the host, but not in the tree."""
    (tree / "sbin/init").unlink()
    (tree / "sbin/init").symlink_to("../../../../../../../../../../../usr/bin/env")


def _no_interpreter(tree: Path) -> None:
    (tree / "sbin/init").write_text("#!/usr/bin/perl\n")


EVIL = {
    "a linked /proc": (_link("proc", "/etc"), "/proc in the tree is a symbolic link"),
    "a linked /sys": (_link("sys", "var"), "/sys in the tree is a symbolic link"),
    "a linked /dev": (_link("dev", "../../../../../../dev"), "/dev in the tree is a symbolic link"),
    "a linked /run": (_link("run", "/"), "/run in the tree is a symbolic link"),
    "a linked /tmp": (_link("tmp", "var"), "/tmp in the tree is a symbolic link"),
    "a file instead of /proc": (_file, "/proc in the tree is not a directory"),
    "no init": (_no_init, "there is no init in"),
    "an init without x": (_plain_init, "/sbin/init in the tree is not an executable file"),
    "a directory as init": (_directory_init, "/sbin/init in the tree is not an executable file"),
    "an init outside the tree": (_escaping_init, "there is no init in"),
    "an init whose interpreter is missing": (_no_interpreter, "No such file or directory /sbin/init"),
}


@pytest.mark.parametrize("case", EVIL)
def test_a_wrong_tree_is_refused_in_one_line_and_leaves_nothing(run: Path, case: str) -> None:
    change, message = EVIL[case]
    name = unique()
    tree = busybox_tree(run.parent / name)
    assert callable(change)
    change(tree)
    with pytest.raises(Refused) as refused:
        vserver.start(Settings(name, tree), run=run)
    assert message in refused.value.message and "\n" not in str(refused.value)
    assert refused.value.message.startswith(name)
    assert vserver.status(name, run=run).state is State.STOPPED
    assert not cgroup.of(name).exists() and name not in Path("/proc/self/mountinfo").read_text()


def test_a_tree_that_is_not_there_or_a_link_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no tree at"):
        vserver.start(Settings(unique(), tmp_path / "none"), run=run)
    tree = busybox_tree(tmp_path / "tree")
    (tmp_path / "link").symlink_to(tree)
    with pytest.raises(Refused, match="is not a directory"):
        vserver.start(Settings(unique(), tmp_path / "link"), run=run)


def test_a_missing_mount_point_is_made(run: Path) -> None:
    name = unique()
    tree = busybox_tree(run.parent / name)
    for directory in ("proc", "sys", "dev", "run", "tmp"):
        (tree / directory).rmdir()
    assert vserver.start(Settings(name, tree), run=run).state is State.RUNNING
    vserver.stop(name, run=run)


def test_a_device_node_in_the_tree_is_dead(run: Path) -> None:
    name = unique()
    tree = busybox_tree(run.parent / name)
    os.mknod(tree / "var/zero", 0o020666, os.makedev(1, 5))
    vserver.start(Settings(name, tree), run=run)
    assert "Permission denied" in inside(run, name, "head -c1 /var/zero")
    vserver.stop(name, run=run)


def test_planted_python_modules_are_not_loaded(run: Path) -> None:
    """A module imported after the root has changed would come from the vserver, with every capability."""
    name = unique()
    tree = busybox_tree(run.parent / name)
    for module in ("warnings", "traceback", "linecache", "encodings/idna"):
        for directory in {Path(os.__file__).parent, Path("/")}:
            planted = tree / str(directory / f"{module}.py").lstrip("/")
            planted.parent.mkdir(parents=True, exist_ok=True)
            planted.write_text("open('/pwned', 'w').write('x')")
    vserver.start(Settings(name, tree), run=run)
    inside(run, name, "true")
    assert vserver.execute(name, ["missing"], run=run).returncode == 127
    vserver.stop(name, run=run)
    assert not (tree / "pwned").exists()


def test_a_script_named_by_the_settings_is_the_init(run: Path) -> None:
    name = unique()
    tree = busybox_tree(run.parent / name)
    script(tree / "bin/mine", "echo $1 $COLOUR > /said; " + trees.IDLE)
    settings = Settings(name, tree, init=("/bin/mine", "word"), environment={"COLOUR": "blue"})
    assert vserver.start(settings, run=run).init == ("/bin/mine", "word")
    trees.wait_until(lambda: (tree / "said").exists() and (tree / "said").read_text() == "word blue\n", "it ran")
    vserver.stop(name, run=run)
