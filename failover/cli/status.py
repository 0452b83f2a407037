"""`failover status`: what runs where, since when, how old its copies are, and what waits for a person."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from dataclasses import asdict, replace
from typing import Any

from failover.cli.operate import Commands
from failover.model import Assignment, State, View, Vserver, Want
from failover.plan import alive, fenced, intent_of, is_drained, own_report, replica_age, terms, verdicts, wanted

WIDTH = 80
Rows = list[tuple[str, ...]]
_COLOURS = {"running": "32", "up": "32", "stopped": "33", "moving": "36", "starting": "36", "drained": "33"}


def add(commands: Commands) -> None:
    status = commands.add_parser("status", help="where everything runs, how old its copies are, and what waits")
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(run=_status)


def _status(options: Namespace) -> None:
    from failover.cli.connect import connected

    with connected(options) as store:
        view = store.view()
    if options.json:
        print(json.dumps(as_data(view), indent=2))
    else:
        coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        print("\n".join(lines(view, coloured=coloured)))


# --- for people -------------------------------------------------------------------------------------------------------


def lines(view: View, *, coloured: bool = False) -> list[str]:
    """What a person sees; nothing is wider than 80 columns but what cannot be broken."""
    up = sum(alive(view, host) for host in view.cluster.hosts)
    leader = f"leader {view.leader}" if view.leader else "nobody leads"
    out = [f"cluster {view.cluster.name} · {up} of {len(view.cluster.hosts)} hosts up · {leader}", ""]
    out += _disarmed(view, coloured)
    for hold in view.holds:
        out += _wrapped(f"! {hold.subject} waits: ", hold.because, coloured)
        out += _wrapped("  → ", hold.hint, coloured) if hold.hint else []
    out += [""] if view.holds else []
    rows: Rows = [("VSERVER", "STATE", "HOST", "SINCE", "ADDRESS", "BACKUPS (GENERATION, AGE)")]
    rows += [_row(view, vserver) for _, vserver in sorted(_shown(view).items())]
    out += _table(rows, coloured) if len(rows) > 1 else ["no vserver is declared"]
    rows = [("HOST", "STATE", "LEASE", "OWNS", "ADDRESS")]
    for name, host in view.cluster.hosts.items():
        owns = [word.vserver for word in view.assignments.values() if _owned_by(view, word, name)]
        rows.append((name, host_state(view, name), _lease(view, name), " ".join(sorted(owns)) or "–", host.address))
    notes = [*_drains(view), *_on_session(view), *_other_terms(view), *_behind(view), *_salvaged(view)]
    return [*out, "", *_table(rows, coloured), *notes]


def _shown(view: View) -> dict[str, Vserver]:
    """What was removed is shown no more."""
    return {name: it for name, it in view.cluster.vservers.items() if not intent_of(view, name).removed}


def _disarmed(view: View, coloured: bool) -> list[str]:
    """A disarm, which changes what everything below means."""
    said = view.intents.cluster
    if not said.disarmed:
        return []
    why = _said(said.by, said.reason)
    state = "starts, stops and moves nothing" if view.memory.disarmed else "first finishes what has begun"
    return [
        *_wrapped("! the cluster is disarmed", f"{why}: the manager {state}", coloured),
        *_wrapped("  → ", "when you are done: failover arm", coloured),
        "",
    ]


def _drains(view: View) -> list[str]:
    """Who drained a host, why, and until when."""
    out = []
    for name in view.cluster.hosts:
        if is_drained(view, name):
            said = view.intents.hosts[name]
            until = f" until {_clock(said.until_at)}" if said.until_at is not None else ""
            out += _wrapped("  ", f"{name}{until}{_said(said.by, said.reason)}", coloured=False)
    return ["", "drained:", *out] if out else []


def _said(by: str, reason: str) -> str:
    return (f" by {by}" if by else "") + (f" ({reason})" if reason else "")


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _row(view: View, vserver: Vserver) -> tuple[str, ...]:
    word = view.assignments.get(vserver.name)
    state, since = vserver_state(view, vserver, word), _since(view, word)
    address = vserver.addresses[0].split("/")[0] if vserver.addresses else "–"
    copies = [_copy(view, vserver, host) for host in vserver.hosts if word is None or host != word.owner]
    return (vserver.name, state, word.owner if word else "–", since, address, ", ".join(copies) or "none")


def _copy(view: View, vserver: Vserver, host: str) -> str:
    report = view.reports.get(host)
    replica = report.replicas.get(vserver.name) if report else None
    if not alive(view, host):
        return f"{host} lost"
    if replica is None:
        return f"{host} none"
    if replica.diverged:
        return f"{host} old"
    age = replica_age(view, vserver, host)
    return f"{host} #{replica.generation} {short(age) if age is not None else '?'}"


def vserver_state(view: View, vserver: Vserver, word: Assignment | None) -> str:
    """One word: what its owner reports, or what it waits for."""
    if wanted(view, vserver) is Want.IGNORED:
        return "ignored"
    if word is None:
        return "waiting"
    if not alive(view, word.owner):
        return "waiting"
    report = own_report(view, word)
    if word.target:
        return "moving"
    if report is None or (report.state is State.STOPPED and word.want == "started"):
        return "starting"
    return str(report.state)


def host_state(view: View, name: str) -> str:
    if not alive(view, name):
        return "fenced" if fenced(view, name) else "lost" if name in view.leases else "never seen"
    return "drained" if is_drained(view, name) else "up"


def _owned_by(view: View, word: Assignment, host: str) -> bool:
    return word.owner == host and word.vserver in _shown(view)


def rests_on(view: View, host: str) -> tuple[str, float] | None:
    """What the host's right rests on, and after how many seconds without a word it may be taken over at the earliest;
    None while it is lost."""
    if not alive(view, host):
        return None
    timing = terms(view, host)
    return ("grants", timing.grant_s) if view.leases[host].granted else ("session", timing.session_s)


def _lease(view: View, host: str) -> str:
    rests = rests_on(view, host)
    return f"{rests[0]}, {rests[1]:g} s" if rests else "–"


def _why_on_session(view: View, host: str) -> str:
    """In the host's words; empty when it should be, or there is nothing to say of it."""
    report = view.reports.get(host)
    rests = rests_on(view, host)
    return report.on_session if report and rests and rests[0] == "session" else ""


def _on_session(view: View) -> list[str]:
    why = {name: _why_on_session(view, name) for name in view.cluster.hosts}
    out = [line for name, text in why.items() if text for line in _wrapped("  ", f"{name}: {text}", coloured=False)]
    return ["", "on the session for now, not on grants:", *out] if out else []


def _other_terms(view: View) -> list[str]:
    """Of agents that were started before `timing` changed, or whose session is not what they asked for."""
    wanted_s, out = view.cluster.timing.session_s, []
    for name in view.cluster.hosts:
        own = terms(view, name)
        if replace(own, session_s=wanted_s) != view.cluster.timing or own.session_s < wanted_s:
            out += _wrapped("  ", f"{name}: restart failover-agent; if that changes nothing, look at zoo.cfg's "
                            "maxSessionTimeout", coloured=False)  # fmt: skip
        elif own.session_s > wanted_s:
            text = f"{name}: its session is one of {own.session_s:g} s until the host is booted"
            out += _wrapped("  ", text, coloured=False)
    return ["", "other timing than applied:", *out] if out else []


def _since(view: View, word: Assignment | None) -> str:
    report = own_report(view, word) if word else None
    return short(max(0.0, time.time() - report.since_at)) if report and report.since_at else "–"


def _behind(view: View) -> list[str]:
    """Why a copy does not get younger, in the owner's words."""
    out = []
    for name, word in sorted(view.assignments.items()):
        report = own_report(view, word)
        for host, shipment in sorted(report.shipments.items() if report else ()):
            if shipment.because and alive(view, host):
                out += _wrapped("  ", f"{name} on {host}: {shipment.because}", coloured=False)
    return ["", "copies that do not get younger:", *out] if out else []


def _salvaged(view: View) -> list[str]:
    kept = [
        f"{host}: {name}: {place}"
        for host, report in sorted(view.reports.items())
        for name, replica in sorted(report.replicas.items())
        for place in replica.salvaged
    ]
    return ["", "kept aside, changes that only a former owner had:", *(f"  {line}" for line in kept)] if kept else []


def short(seconds: float) -> str:
    """A length of time in one or two words: 0.4 s, 12 s, 3 min, 2 h, 5 d."""
    for limit, unit, size in ((10, "s", 1), (100, "s", 1), (6000, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}" if limit == 10 else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _table(rows: Rows, coloured: bool) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    out = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        indent = sum(widths[:-1]) + 2 * (len(widths) - 1)
        head = "  ".join(cells[:-1])
        tail = _broken(row[-1], max(20, WIDTH - indent))
        if coloured and row is not rows[0]:
            colour = _COLOURS.get(row[1], "31")
            head = head.replace(row[1], f"\x1b[{colour}m{row[1]}\x1b[0m", 1) if row[0] != row[1] else head
        out.append(f"{head}  {tail[0]}".rstrip())
        out += [" " * indent + more for more in tail[1:]]
    return out


def _broken(text: str, width: int) -> list[str]:
    """At the commas, each piece no wider than `width` if it can be."""
    out = [""]
    for piece in text.split(", "):
        joined = f"{out[-1]}, {piece}" if out[-1] else piece
        if len(joined) <= width or not out[-1]:
            out[-1] = joined
        else:
            out.append(piece)
    return out


def _wrapped(mark: str, text: str, coloured: bool) -> list[str]:
    import textwrap

    filled = textwrap.wrap(text, WIDTH, initial_indent=mark, subsequent_indent="    ")
    return [f"\x1b[33m{line}\x1b[0m" for line in filled] if coloured else filled


# --- for programs -----------------------------------------------------------------------------------------------------


def as_data(view: View) -> dict[str, Any]:
    """The same as data. `format` grows when a key changes its meaning; ages in seconds, times since 1970."""
    return {
        "format": 1,
        "cluster": view.cluster.name,
        "leader": view.leader,
        "disarmed": view.intents.cluster.disarmed,
        "vservers": {name: _vserver_data(view, vserver) for name, vserver in sorted(_shown(view).items())},
        "hosts": {
            name: {
                "state": host_state(view, name),
                "drained_until": view.intents.hosts[name].until_at if is_drained(view, name) else None,
                "address": host.address,
                "lease": _lease_data(view, name),
                "fencing": _fencing_data(view, name),
                "owns": sorted(word.vserver for word in view.assignments.values() if _owned_by(view, word, name)),
            }
            for name, host in view.cluster.hosts.items()
        },
        "holds": [asdict(hold) for hold in view.holds],
    }


def _lease_data(view: View, host: str) -> dict[str, Any] | None:
    rests = rests_on(view, host)
    return {"rests_on": rests[0], "length": rests[1], "because": _why_on_session(view, host)} if rests else None


def _fencing_data(view: View, host: str) -> dict[str, Any] | None:
    """The last attempt to cut its power."""
    last = view.memory.fencings.get(host)
    if last is None:
        return None
    return {"state": str(last.state), "because": last.because, "began": last.began_at, "ended": last.ended_at or None}


def _vserver_data(view: View, vserver: Vserver) -> dict[str, Any]:
    word = view.assignments.get(vserver.name)
    report = own_report(view, word) if word else None
    return {
        "state": vserver_state(view, vserver, word),
        "want": str(word.want) if word else str(vserver.want),
        "owner": word.owner if word else None,
        "epoch": word.epoch if word else 0,
        "target": word.target if word else None,
        "because": word.because if word else "",
        "since": report.since_at if report and report.since_at else None,
        "addresses": list(vserver.addresses),
        "backups": {host: _copy_data(view, vserver, host) for host in vserver.hosts if not word or host != word.owner},
        "verdicts": {v.host: {"may": v.may, "because": v.because} for v in verdicts(view, vserver)},
    }


def _copy_data(view: View, vserver: Vserver, host: str) -> dict[str, Any]:
    report = view.reports.get(host)
    replica = report.replicas.get(vserver.name) if report else None
    return {
        "up": alive(view, host),
        "generation": replica.generation if replica else None,
        "diverged": replica.diverged if replica else None,
        "age_s": replica_age(view, vserver, host) if replica and not replica.diverged else None,
        "because": _shipment_trouble(view, vserver, host),
        "salvaged": list(replica.salvaged) if replica else [],
    }


def _shipment_trouble(view: View, vserver: Vserver, host: str) -> str:
    word = view.assignments.get(vserver.name)
    report = own_report(view, word) if word else None
    return report.shipments[host].because if report and host in report.shipments else ""
