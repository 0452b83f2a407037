"""`hosts.*.fence`: the device that cuts a host's power. The names of the rows are the policy."""

from __future__ import annotations

import pytest

from failover.config import examine, parse
from failover.model import Fence
from tests.test_config import problems, text


def alpha(fence: str, beta: str = "") -> str:
    other = f", fence: {beta}" if beta else ""
    return text(
        hosts=f"{{alpha: {{address: 10.0.0.1, fence: {fence}}}, beta: {{address: 10.0.0.2{other}}}, gamma: "
        "{address: 10.0.0.3}}"
    )


UNDERSTOOD = {
    "an agent and its options": (
        "{agent: fence_ipmilan, options: {ip: 10.0.9.1, username: admin, password_file: /etc/failover/ipmi}}",
        Fence("fence_ipmilan", {"ip": "10.0.9.1", "username": "admin", "password_file": "/etc/failover/ipmi"}),
    ),
    "every value is a word as it is written": (
        "{agent: fence_apc, options: {plug: 010, lanplus: on, ssh: no, cipher: 1e3}}",
        Fence("fence_apc", {"plug": "010", "lanplus": "on", "ssh": "no", "cipher": "1e3"}),
    ),
    "an agent alone": ("{agent: fence_x-y2}", Fence("fence_x-y2")),
    "no options": ("{agent: fence_apc, options: {}}", Fence("fence_apc")),
    "a file that the agent itself wants": (
        "{agent: fence_virsh, options: {identity_file: id_rsa}}",
        Fence("fence_virsh", {"identity_file": "id_rsa"}),
    ),
}


@pytest.mark.parametrize(("said", "fence"), UNDERSTOOD.values(), ids=UNDERSTOOD.keys())
def test_it_is_understood(said: str, fence: Fence) -> None:
    found = parse(alpha(said)).hosts["alpha"].fence
    assert found is not None
    assert (found.agent, dict(found.options)) == (fence.agent, dict(fence.options))
    assert parse(alpha(said)).hosts["beta"].fence is None


REFUSED = {
    "no agent": ("{options: {ip: 10.0.9.1}}", "is missing: name one, as in agent: fence_ipmilan"),
    "a path": (
        "{agent: /usr/sbin/fence_apc}",
        "'/usr/sbin/fence_apc' is not the name of a fence agent: without its directory, as in fence_ipmilan",
    ),
    "another program": (
        "{agent: reboot}",
        "'reboot' is not the name of a fence agent: without its directory, as in fence_ipmilan",
    ),
    "an agent that keeps a host from its disks": (
        "{agent: fence_scsi}",
        "fence_scsi does not cut the power: so it proves nothing; name one that does, as in fence_ipmilan",
    ),
    "one that always says yes": (
        "{agent: fence_ack_manual}",
        "fence_ack_manual does not cut the power: so it proves nothing; name one that does, as in fence_ipmilan",
    ),
    "an action": (
        "{agent: fence_apc, options: {action: reboot}}",
        "the action is not yours to choose: leave it out: it is off, and then status",
    ),
    "no name of an option": (
        "{agent: fence_apc, options: {'ip\\nx': 1}}",
        "'ip\\nx' is not the name of an option: letters, digits, '_' and '-', as in ip",
    ),
    "an option that is a list": ("{agent: fence_apc, options: {plug: [1, 2]}}", "is a list: write text"),
    "an option without a value": (
        "{agent: fence_apc, options: {plug: }}",
        "has no value: write text, or leave the key out",
    ),
    "a secret and its file": (
        "{agent: fence_apc, options: {password: x, password_file: /etc/x}}",
        "stands beside password: keep one of the two",
    ),
    "a file that is found nowhere": (
        "{agent: fence_apc, options: {password_file: secret}}",
        "'secret' is not a full path: begin it with /",
    ),
    "an unknown key": ("{agent: fence_apc, option: {}}", "is not a key that is known here (did you mean options?)"),
}


@pytest.mark.parametrize(("said", "advice"), REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused(said: str, advice: str) -> None:
    (problem,) = problems(alpha(said))
    assert problem.advice == advice
    assert problem.path.startswith("hosts.alpha.fence")
    assert problem.mark is not None


def test_two_hosts_on_one_outlet_are_refused() -> None:
    same = "{agent: fence_apc, options: {ip: 10.0.9.1, plug: 1}}"
    (problem,) = problems(alpha(same, same))
    assert problem.path == "hosts.beta.fence"
    assert problem.advice.startswith("is the very device of alpha, whose power would be cut in its place")
    assert parse(alpha(same, same.replace("plug: 1", "plug: 2")))


def test_a_password_in_the_file_is_warned_of() -> None:
    (warning,) = examine(alpha("{agent: fence_apc, options: {ip: 10.0.9.1, password: x}}")).warnings
    assert warning.path == "hosts.alpha.fence.options.password"
    assert warning.hint == "put it into a file, and name that: password_file"
