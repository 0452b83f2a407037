"""Vservers inside a host that is itself a set of namespaces in a cgroup of its own, as the lab makes them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.isolation import cgroup
from tests.trees import busybox_tree, unique, wait_until

pytestmark = pytest.mark.needs("root", "busybox")

# In the host's cgroup: new namespaces, of which this script's shell is process 1; then its own view of everything.
HOST = """
set -e
mount --make-rslave /
mount -t tmpfs tmpfs /run
unified=$1; shift
points=$(awk '$9 == "cgroup" || $8 == "cgroup" {print $5}' /proc/self/mountinfo)
umount -l /sys/fs/cgroup
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /sys/fs/cgroup
for point in $points; do
    mkdir -p $point
    name=$(basename $point)
    [ $name = systemd ] && name=none,name=systemd
    mount -t cgroup -o $name cgroup $point
done
mkdir -p $unified
mount -t cgroup2 cgroup2 $unified
"$@" & wait $!
"""

STORY = """
import json, os, sys
from pathlib import Path
from agents.isolation import cgroup, vserver
from tests import trees

tree, name = Path(sys.argv[1]), sys.argv[2]
assert os.getpid() < 1000, "the host has its own process ids"
with trees.spawner(vserver.RUN):
    started = vserver.start(vserver.Settings(name, tree))
    inside = vserver.execute(name, ["cat", "/proc/self/cgroup"]).stdout.decode()
    vserver.freeze(name)
    frozen = vserver.status(name).state
    vserver.thaw(name)
    stopped = vserver.stop(name)
    again = vserver.start(vserver.Settings(name, tree))
    vserver.freeze(name)
    killed = vserver.kill(name)
    left = cgroup.of(name).exists()
print(json.dumps([started.state, inside, frozen, stopped.ended, again.state, killed.ended, left]))
"""


@pytest.fixture
def host() -> Iterator[str]:
    """The cgroups of a host; at the end everything in them is gone."""
    name = unique("host")
    legacy = [path.parent.parent for path in cgroup.legacy(name)]
    hierarchies = [cgroup.cgroup2(), *legacy]
    for hierarchy in hierarchies:
        (hierarchy / name).mkdir()
    for hierarchy in legacy:  # a cgroup2 has its parent's processors by itself
        for key in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / name / key).exists():
                (hierarchy / name / key).write_text((hierarchy / key).read_text())
    yield name
    cgroup.kill(cgroup.cgroup2() / name)
    cgroup.wait_empty(cgroup.cgroup2() / name, 10)
    for hierarchy in hierarchies:
        wait_until(lambda hierarchy=hierarchy: _removed(hierarchy / name), f"{hierarchy / name} is gone")


def _removed(directory: Path) -> bool:
    for below in sorted((path for path in directory.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            below.rmdir()
    with contextlib.suppress(OSError):
        directory.rmdir()
    return not directory.exists()


def test_a_whole_life_inside_a_host_of_namespaces(host: str, tmp_path: Path) -> None:
    tree, name = busybox_tree(tmp_path / "tree"), unique()
    joins = "".join(f"echo $$ > {path.parent.parent / host}/cgroup.procs; " for path in cgroup.legacy(name))
    joins += f"echo $$ > {cgroup.cgroup2() / host}/cgroup.procs; "
    unshare = 'exec unshare --pid --mount --net --uts --ipc --cgroup --fork --mount-proc sh -c "$@"'
    story = [sys.executable, "-c", STORY, str(tree), name]
    argv = ["sh", "-c", joins + unshare, "sh", HOST, "sh", str(cgroup.cgroup2()), *story]
    root = Path(__file__).parent.parent
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, cwd=root)
    assert done.returncode == 0, done.stderr
    states = ["running", "frozen", "stopped", "running", "killed"]
    started, inside, frozen, stopped, again, killed, left = json.loads(done.stdout)
    assert [started, frozen, stopped, again, killed] == states and not left
    assert {line.split(":")[2] for line in inside.split()} == {"/"}
