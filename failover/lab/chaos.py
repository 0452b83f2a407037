"""Random faults for real processes, as a story: drawn from a seed, so that a run can be written, read and repeated.

       wave              calm            wave            calm
    ┌─ isolate ──┐                  ┌─ power-off ─┐               …   settled: everything wanted runs, copies follow
      ┌ stall ┐      all is mended     ┌ cut ──┐     all is mended

Rule 1: a fault lasts LONGEST_S at most, then its own story heals it.
Rule 2: a wave is up to MOST faults at a time; then nothing fails for CALM_S, so that ZooKeeper has a majority now and
        then, and what asks it (who leads, a command) begins a wave.
Rule 3: a host bears one fault of itself and one of its processes at a time. An agent and a guard that hang together are
        not drawn: without a watchdog nothing freezes then, and only the kernel's fence holds (docs/safety.md, 3).

Left out: clocks that jump. A wall clock is the kernel's, shared by all hosts of a lab; time namespaces have only the
monotonic clock and the boot time, and only at their making. Disks that fail, checks that fail: as in ability.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from failover.errors import BadInput
from failover.model import Cluster
from failover.stories.drawing import Draw, Said, crash, ends_s, healed, lasting, link, once, some_seconds
from failover.stories.reading import read_story

MOST_HOSTS, LEAST_HOSTS = 5, 3
FIRST_S = 5.0
CALM_S = (8.0, 16.0)
WITHIN_S = 8.0  # from the first fault of a wave to the last
_AT_A_TIME = (1, 2, 2, 3, 3)  # one of these is drawn
MOST = max(_AT_A_TIME)
LONGEST_S = 20.0
SETTLES_S = 240.0  # of the story's own time: more than the simulator's three minutes

_VSERVERS = {"web": (2, "2s"), "db": (2, "1s"), "app": (1, "2s")}  # how many backups, how often they are synced


@dataclass(frozen=True)
class Kind:
    """`layer`: of what a host bears one at a time. `asks`: it needs ZooKeeper. `counts_s`: how long one that does not
    say so may take until it is over."""

    weight: int
    draw: Draw
    layer: str = "host"
    asks: bool = False
    counts_s: float = 0.0


def _move(chance: random.Random, cluster: Cluster) -> tuple[Said, ...]:
    """An operator's command; refused like any other when it cannot be."""
    vserver = cluster.vservers[chance.choice(sorted(cluster.vservers))]
    return ((0.0, f"move {vserver.name} {chance.choice([vserver.primary, *vserver.backups])}"),)


def _burst(chance: random.Random, cluster: Cluster) -> tuple[Said, ...]:
    return ((0.0, f"write {chance.choice(sorted(cluster.vservers))} {chance.randint(1, 24)}M"),)


KINDS: Mapping[str, Kind] = {
    "power cut": Kind(5, healed("power-off {}", "power-on {}", 1, LONGEST_S)),
    "cable": Kind(5, healed("isolate {}", "join {}", 1, LONGEST_S)),
    "link": Kind(7, link(1, LONGEST_S, "store", "store", "clients")),
    "stall": Kind(5, lasting("stall {} {}s", 0.3, LONGEST_S)),
    "reboot": Kind(1, once("reboot {}"), counts_s=LONGEST_S),
    "full disk": Kind(2, healed("disk-full {}", "disk-free {}", 3, LONGEST_S)),
    "agent hangs": Kind(3, lasting("agent-hang {} {}s", 0.5, LONGEST_S), "processes"),
    "agent dies": Kind(2, once("agent-restart {}"), "processes"),
    "agent is away": Kind(2, healed("agent-stop {}", "agent-start {}", 1, LONGEST_S), "processes"),
    "guard hangs": Kind(3, lasting("guard-hang {} {}s", 0.3, LONGEST_S), "processes"),
    "guard dies": Kind(2, once("guard-stop {}"), "processes"),
    "leader hangs": Kind(2, lasting("leader-hang {1}s", 1, LONGEST_S), "leader", asks=True),
    "leader dies": Kind(2, once("leader-stop"), "leader", asks=True, counts_s=10.0),
    "store outage": Kind(2, healed("store-down", "store-up", 1, LONGEST_S), "store", asks=True),
    "store dies": Kind(2, once("store-restart"), "store", asks=True, counts_s=5.0),
    "crash": Kind(1, crash, "vserver"),
    "burst of writes": Kind(2, _burst, "vserver"),
    "a move": Kind(3, _move, "vserver", asks=True),
}


# --- drawing ----------------------------------------------------------------------------------------------------------


def draw(cluster: Cluster, seed: int, length_s: float) -> tuple[Said, ...]:
    """Every event with its second, in the order of time. The last wave begins before `length_s`."""
    chance = random.Random(seed)
    drawn: list[Said] = []
    begins_s = FIRST_S
    while begins_s < length_s:
        calm_s = begins_s
        for after_s, kind, said in _wave(chance, cluster):
            here_s = round(begins_s + after_s, 1)
            drawn += [(round(here_s + at_s, 1), text) for at_s, text in said]
            calm_s = max(calm_s, here_s + max(kind.counts_s, ends_s(said)))
        begins_s = round(calm_s + some_seconds(chance, *CALM_S), 1)
    return tuple(sorted(drawn, key=lambda event: event[0]))


def _wave(chance: random.Random, cluster: Cluster) -> Iterator[tuple[float, Kind, tuple[Said, ...]]]:
    """Each fault with the second, from the first one, at which it begins."""
    borne = set[tuple[str, str]]()
    for number in range(chance.choice(_AT_A_TIME)):
        kinds = [kind for kind in KINDS.values() if number == 0 or not kind.asks]
        kind = chance.choices(kinds, [kind.weight for kind in kinds])[0]
        said = kind.draw(chance, cluster)
        subjects = {(kind.layer, name) for name in _named(cluster, said) or [""]}
        if not subjects & borne:
            borne |= subjects
            yield (chance.uniform(0.0, WITHIN_S) if number else 0.0), kind, said


def _named(cluster: Cluster, said: Sequence[Said]) -> set[str]:
    return {word for _, text in said for word in text.split() if word in cluster.hosts or word in cluster.vservers}


# --- the story --------------------------------------------------------------------------------------------------------


def story_text(seed: int, length_s: float, hosts: int = 3, timing: str = "normal") -> str:
    """The file: a cluster, `length_s` seconds of faults, and that all is wanted runs at the end."""
    head = f"id: chaos-{seed}\ntitle: Random faults for {length_s:g} s, drawn from seed {seed}.\n{_law(hosts, timing)}"
    cluster = read_story(f"{head}until: 1s\n", "chaos").cluster
    happens: dict[float, list[str]] = {}
    for at_s, text in draw(cluster, seed, length_s):
        happens.setdefault(at_s, []).append(text)
    events = "".join(f"  - {{at: {at_s:g}s, do: [{', '.join(texts)}]}}\n" for at_s, texts in happens.items())
    final = "".join(
        f"    {v.name}: [{', '.join(f'started@{host}' for host in (v.primary, *v.backups))}]\n"
        for v in cluster.vservers.values()
    )
    until_s = max(happens) + LONGEST_S + SETTLES_S
    return f"{head}events:\n{events}until: {until_s:g}s\nexpect:\n  final:\n{final}"


def _law(count: int, timing: str) -> str:
    if not LEAST_HOSTS <= count <= MOST_HOSTS:
        hint = "the first three carry ZooKeeper"
        raise BadInput(f"chaos has {LEAST_HOSTS} to {MOST_HOSTS} hosts, not {count}", hint=hint)
    hosts = [f"host{letter}" for letter in "ABCDE"[:count]]
    lines = ["cluster:", f"  timing: {timing}", f"  hosts: {{{', '.join(f'{host}: {{}}' for host in hosts)}}}"]
    lines += ["  vservers:"]
    for number, (name, (copies, every)) in enumerate(_VSERVERS.items()):
        first, *others = [*hosts[number:], *hosts[:number]]
        lines.append(
            f"    {name}: {{primary: {first}, backups: [{', '.join(others[:copies])}], sync: {{every: {every}}}, "
            "restart: {local: 20, moves: 20, within: 10m}}"
        )
    return "\n".join([*lines, ""])
