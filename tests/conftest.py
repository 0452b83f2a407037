"""What the tests need of the machine. In CI a missing feature is an error; elsewhere a skip that says why."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.replication import rsync
from failover.errors import FailoverError


def _rsync() -> bool:
    try:
        rsync.check_version()
    except FailoverError:
        return False
    return True


FEATURES: dict[str, Callable[[], bool]] = {
    "root": lambda: os.geteuid() == 0,
    "java": lambda: shutil.which("java") is not None and Path("/usr/share/java/zookeeper.jar").exists(),
    "rsync": _rsync,
    "sshd": lambda: Path("/usr/sbin/sshd").exists(),
    "nft": lambda: shutil.which("nft") is not None,
    "btrfs": lambda: shutil.which("mkfs.btrfs") is not None,
    "busybox": lambda: Path("/bin/busybox").exists(),
    "debian": lambda: shutil.which("mmdebstrap") is not None,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker in item.iter_markers("needs"):
            missing = [feature for feature in marker.args if not FEATURES[feature]()]
            if missing and not os.environ.get("CI"):
                item.add_marker(pytest.mark.skip(reason=f"this machine lacks {', '.join(missing)}"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        missing = [feature for feature in marker.args if not FEATURES[feature]()]
        if missing:
            pytest.fail(f"this machine lacks {', '.join(missing)}, and CI may skip nothing")
