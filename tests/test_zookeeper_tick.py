"""How long the ticks of a real ZooKeeper are found to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from failover.cli import main
from failover.errors import Unsafe
from failover.zookeeper import tick
from tests.zookeeper_server import ZooKeeperServers, free_ports

pytestmark = pytest.mark.needs("java")

# what zoo.cfg says, in ms: tick, shortest and longest session -> longer than 0.2 s?
CONFIGURED = {
    "as failover init writes it": ((200, None, 60_000), False),
    "ZooKeeper's defaults": ((2000, None, None), True),
    "slow ticks, and long sessions allowed": ((2000, None, 600_000), True),
    "quick ticks, and no short sessions": ((200, 4000, None), False),
}


@pytest.mark.parametrize(("configured", "longer"), CONFIGURED.values(), ids=CONFIGURED)
def test_ticks_that_are_longer_than_cluster_yaml_says_are_refused(
    tmp_path: Path, configured: tuple[int | None, ...], longer: bool
) -> None:
    servers = ZooKeeperServers(tmp_path)
    keys = ("tickTime", "minSessionTimeout", "maxSessionTimeout")
    servers.configure(dict(zip(keys, configured, strict=True)))
    try:
        servers.start()
        if longer:
            with pytest.raises(Unsafe, match=r"longer than 0\.2 s: 127.* \(2 s\): write tickTime=200 "):
                tick.check(servers.clients, "user:secret", 0.2)
        assert tick.check(servers.clients, "user:secret", 2.0 if longer else 0.2) == ()
    finally:
        servers.close()


def test_apply_refuses_what_rests_on_shorter_ticks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    servers = ZooKeeperServers(tmp_path)
    servers.configure({"tickTime": 2000, "maxSessionTimeout": None})
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("user:secret\n")
    said = f"""\
cluster: ticks
zookeeper: {{servers: ["{servers.clients[0]}"], credentials: {secret}}}
hosts:
  hostA: {{address: 10.0.0.1}}
"""
    file = tmp_path / "cluster.yaml"
    options = main.parser().parse_args(["--config", str(file), "apply"])
    try:
        servers.start()
        file.write_text(f"{said}timing: normal\n")
        with pytest.raises(Unsafe, match=r"the ticks of ZooKeeper are longer than 0\.2 s"):
            options.run(options)
        file.write_text(f"{said}timing: {{tick: 2s, session: 13s, leader_session: 5s}}\n")
        options.run(options)
        assert capsys.readouterr().out.endswith("applied: 1 host, no vserver\n")
    finally:
        servers.close()


def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tick, "_ANSWER_S", 0.3)
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    assert tick.check([nobody], "user:secret", 0.2) == (nobody,)
