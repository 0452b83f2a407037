"""The list of what a vserver sees, checked as data: no root needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agents.isolation import capabilities, record, seccomp
from agents.isolation.order import ExecuteOrder, PingOrder, StartOrder, from_message, to_message
from agents.isolation.rootfs import OPERATIONS, Link, Mask, Mount, Node, ReadOnly

MOUNTS = [operation for operation in OPERATIONS if isinstance(operation, Mount)]


def test_every_parent_is_mounted_before_what_lies_in_it() -> None:
    seen: set[str] = set()
    points = {mount.target for mount in MOUNTS}
    for operation in OPERATIONS:
        parts = operation.target.split("/")
        above = {"/".join(parts[:length]) for length in range(1, len(parts))} & points
        assert above <= seen, operation
        seen.add(operation.target)


def test_nothing_of_the_tree_itself_is_touched_but_five_directories() -> None:
    assert {operation.target.split("/")[0] for operation in OPERATIONS} == {"proc", "sys", "dev", "run", "tmp"}


def test_only_the_newer_cgroups_are_shown() -> None:
    assert [mount.target for mount in MOUNTS if mount.kind.startswith("cgroup")] == ["sys/fs/cgroup"]
    assert {mount.kind for mount in MOUNTS} == {"proc", "sysfs", "cgroup2", "tmpfs", "devpts", "mqueue"}


def test_device_nodes_work_only_where_we_make_them() -> None:
    for mount in MOUNTS:
        assert "nosuid" in mount.attributes
        assert ("nodev" in mount.attributes) == (mount.target not in ("dev", "dev/pts"))
    nodes = [operation.target for operation in OPERATIONS if isinstance(operation, Node)]
    assert sorted(nodes) == [f"dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")]
    assert all(operation.target.startswith("dev/") for operation in OPERATIONS if isinstance(operation, Link))


def test_what_shows_or_changes_the_host_is_hidden_or_read_only() -> None:
    masked = {operation.target for operation in OPERATIONS if isinstance(operation, Mask)}
    fixed = {operation.target for operation in OPERATIONS if isinstance(operation, ReadOnly)}
    assert {"proc/kcore", "proc/kallsyms", "proc/keys", "proc/kmsg", "sys/firmware", "sys/kernel/debug"} <= masked
    assert fixed == {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"}
    assert "ro" in next(mount for mount in MOUNTS if mount.target == "sys").attributes


def test_what_root_may_do_is_little() -> None:
    forbidden = {"SYS_ADMIN", "MKNOD", "SYS_MODULE", "SYS_PTRACE", "NET_ADMIN", "SYS_RAWIO", "DAC_READ_SEARCH", "BPF"}
    assert not forbidden & set(capabilities.KEPT_NAMES)
    assert capabilities.KEPT_MASK.bit_count() == len(capabilities.KEPT_NAMES)


def test_every_denied_call_is_known_and_named_once() -> None:
    assert len(set(seccomp.DENIED)) == len(seccomp.DENIED)
    assert list(seccomp.DENIED) == sorted(seccomp.DENIED)
    program = seccomp.program()
    assert program and len(program) % 8 == 0 and program == seccomp.program()


ORDERS = (
    StartOrder("web1", "/vservers/web1", "web1", ("/sbin/init",), "systemd", "fresh", 7.5, {"A": "b"}),
    ExecuteOrder("web1", ("true",), "www", False, {"A": "b"}),
    PingOrder(),
)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: type(order).__name__)
def test_an_order_arrives_as_it_was_sent(order: StartOrder | ExecuteOrder | PingOrder) -> None:
    assert from_message(to_message(order)) == order


ENDS = {
    "nobody knows": (None, record.Ended.UNKNOWN, "it ended while nobody watched"),
    "exit 0": (0, record.Ended.STOPPED, "its init ended"),
    "exit 1": (1 << 8, record.Ended.CRASHED, "its init ended with exit code 1"),
    "SIGHUP: reboot(RESTART)": (1, record.Ended.RESTART, "it was rebooted from inside"),
    "SIGINT: reboot(HALT or POWER_OFF)": (2, record.Ended.STOPPED, "it was powered off from inside"),
    "SIGKILL": (9, record.Ended.CRASHED, "its init died of SIGKILL"),
    "SIGSEGV with a core": (11 | 0x80, record.Ended.CRASHED, "its init died of SIGSEGV"),
}


@pytest.mark.parametrize("case", ENDS)
def test_what_a_wait_status_says(case: str) -> None:
    status, ended, because = ENDS[case]
    assert record.how(status) == (ended, because)


def test_two_who_write_down_its_end_at_once_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record.begin(tmp_path, "web1")
    life = record.of_process("web1", os.getpid(), ("/sbin/init",), "other")
    record.write(tmp_path, life)
    record.ask(tmp_path, "web1", record.Ended.STOPPED, "it was stopped")
    read = record.read

    def overtaken(run: Path, name: str) -> record.Record | None:
        found = read(run, name)
        monkeypatch.undo()
        record.end(tmp_path, life, 9)  # the other one, from its beginning to its end
        return found

    monkeypatch.setattr(record, "read", overtaken)
    record.end(tmp_path, life, 9)
    last = record.last_exit(tmp_path, "web1")
    assert last is not None and (last.ended, last.because) == (record.Ended.STOPPED, "it was stopped")
