"""failover lab chaos: random faults on real processes; what it prints, and what it keeps of a run that failed."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from failover.cli.played import interruptible, say_to
from failover.errors import Refused
from failover.lab import chaos
from failover.lab.lab import Lab
from failover.lab.trial import Verdict, try_out
from failover.stories.outcome import as_data
from failover.stories.reading import Opened, open_text

KEPT = Path("/var/tmp")


def run(options: argparse.Namespace) -> int:
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    text = chaos.story_text(seed, options.minutes * 60.0, options.hosts, options.timing)
    if options.write:
        options.write.write_text(text)
        print(f"failover lab play {options.write}\nfailover simulate {options.write}")
        return 0
    opened = open_text(text, f"chaos with seed {seed}")
    assert opened is not None
    lab = Lab(options.name or f"chaos-{os.getpid()}")
    if lab.place.directory.exists():
        raise Refused(f"there is a lab {lab.place.name}", hint=f"failover lab down --name {lab.place.name}")
    say = say_to(options)
    say(f"seed {seed}: {options.minutes:g} min of faults, and then all must run again")
    kept: Path | None = None
    with interruptible():
        try:
            verdict = try_out(opened, lab, say)
            if verdict.broken or options.keep:
                kept = keep(lab, text, opened, verdict, seed)
        finally:
            lab.down()
    again = _command(options, seed) if verdict.broken else ""
    if options.json:
        print(json.dumps(as_report(opened, verdict, again, kept), ensure_ascii=False))
    else:
        print("\n".join(shown(verdict, again, kept)))
    return 1 if verdict.broken else 0


def _command(options: argparse.Namespace, seed: int) -> str:
    words = ["failover", "lab", "chaos", "--minutes", f"{options.minutes:g}", "--seed", str(seed)]
    return shlex.join([*words, "--hosts", str(options.hosts), "--timing", options.timing])


def keep(lab: Lab, text: str, opened: Opened, verdict: Verdict, seed: int) -> Path:
    """What the hosts have logged, the story, and the verdict: outside of the lab, which will be gone."""
    directory = KEPT / f"failover-chaos-{seed}-{os.getpid()}"
    for host in lab.real_hosts:
        shutil.copytree(lab.place.host(host) / "log", directory / host)
    (directory / "story.yaml").write_text(text)
    (directory / "verdict.json").write_text(json.dumps(as_report(opened, verdict, "", None), indent=1))
    return directory


# --- what is told -----------------------------------------------------------------------------------------------------


def as_report(opened: Opened, verdict: Verdict, again: str, kept: Path | None) -> dict[str, Any]:
    looks = verdict.looks
    return {
        **as_data(opened.story, verdict.outcome, verdict.differences),
        "agreed": not verdict.broken,
        "broken": list(verdict.broken),
        "faults": dict(verdict.faults),
        "vservers": {
            name: {
                "outages_s": [[round(began, 3), round(ended, 3)] for began, ended in outages],
                "rows": looks.tried[name],
                "acknowledged": looks.acknowledged[name],
                "lost": sum(len(loss.rows) for loss in verdict.losses if loss.vserver == name),
            }
            for name, outages in verdict.outages.items()
        },
        "granted": {host: round(share, 3) for host, share in looks.granted.items()},
        "takeovers": {"grants": looks.takeovers[0], "session": looks.takeovers[1]},
        "looks": {"watch": looks.watch, "longest_s": looks.longest_s, "late": looks.late},
        "repeat": again,
        "logs": str(kept) if kept else None,
    }


def shown(verdict: Verdict, again: str, kept: Path | None) -> Sequence[str]:
    looks = verdict.looks
    lines = ["faults: " + ", ".join(f"{count} {word}" for word, count in verdict.faults.items())]
    lines += ["vserver        outages  longest    total   rows acknowledged  lost by takeovers"]
    for name, outages in verdict.outages.items():
        lengths = [ended - began for began, ended in outages]
        lost = sum(len(loss.rows) for loss in verdict.losses if loss.vserver == name)
        written = f"{looks.acknowledged[name]} of {looks.tried[name]}"
        times = f"{max(lengths, default=0.0):6.1f} s {sum(lengths):6.1f} s"
        lines.append(f"{name:15} {len(lengths):6} {times} {written:>19} {lost:18}")
    shares = ", ".join(f"{host} {share:.0%}" for host, share in looks.granted.items())
    by_grants, by_session = looks.takeovers
    lines.append(
        f"on grants: {shares or 'nobody'} of the time; takeovers: {by_grants} by grants, {by_session} by session"
    )
    late = f"; {looks.late} times two spoke between looks too far apart to count" if looks.late else ""
    lines.append(f"watched: {looks.watch} looks, {looks.longest_s * 1000:.0f} ms between two at most{late}")
    if not verdict.broken:
        passed = "passed: nothing ran twice, nothing answered twice, nothing whole was lost, and all runs"
        return [*lines, passed, *([f"  the logs: {kept}"] if kept else [])]
    lines += ["FAILED", *(f"  {line}" for line in verdict.broken)]
    lines += [f"    {line}" for line in verdict.outcome.story]
    return [*lines, f"  repeat it: {again}", f"  the logs: {kept}"]
