"""`timing` of cluster.yaml: a profile by its name, or the terms themselves; those left out are as in `normal`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from failover.timing import PROFILES, Timing

NORMAL = PROFILES["normal"]

# key of cluster.yaml -> term
TERMS: Mapping[str, str] = {
    "session": "session_s",
    "tick": "tick_s",
    "drift": "drift",
    "freeze": "freeze_s",
    "margin": "margin_s",
    "renewals": "renewals",
    "grant": "grant_s",
    "leader_session": "leader_session_s",
}


def timing_of(said: str | Mapping[str, Any] | None) -> Timing:
    """As the file has it, once it is read; None: it says nothing. Raises Unsafe."""
    if said is None:
        return NORMAL
    if isinstance(said, str):
        return PROFILES[said]
    return replace(NORMAL, **{TERMS[key]: value for key, value in said.items()}).checked()


def name_of(timing: Timing) -> str:
    return next((name for name, profile in PROFILES.items() if profile == timing), "of your own")
