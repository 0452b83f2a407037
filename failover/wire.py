"""Between the model and the bytes of a znode: JSON, with the number of its format.

Rule 1: what is written is read back exactly.
Rule 2: a key that this version does not know is ignored, so a newer failover may add one without a new format; a key
        that is missing takes its default, so a newer failover reads what an older one wrote.
Rule 3: a change that an older failover would misunderstand raises FORMAT, and the older one then says so.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from failover.errors import Refused, Unreadable
from failover.model import Cluster, Hold, frozen_map
from failover.timing import PROFILES, Timing

FORMAT = 3  # since a cluster's `timing` is its terms; an older failover would look for a profile of that name

_R = TypeVar("_R")


@dataclass(frozen=True)
class Applied:
    """The record of `cluster`: what was declared, and the text that it was declared in."""

    cluster: Cluster
    text: str = ""


@dataclass(frozen=True)
class Holds:
    holds: tuple[Hold, ...] = ()


@dataclass(frozen=True)
class Holder:
    """The record of `leader/holder`."""

    name: str


@dataclass(frozen=True)
class LeaseRecord:
    """The record of `leases/H`. Its version counts, and what model.Lease says of the fields; `session` tells people who
    wrote it."""

    session: int = 0
    granted: bool = False


def encode(record: object) -> bytes:
    """A record, that is an instance of a dataclass, as bytes."""
    return json.dumps({"format": FORMAT, **_plain(record)}, ensure_ascii=False, separators=(",", ":")).encode()


def decode(kind: type[_R], data: bytes, *, where: str = "") -> _R:
    """The record of the class `kind`; `where` names the znode in the error. Raises Refused."""
    what = where or kind.__name__
    try:
        plain = json.loads(data)
        written = plain["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise Unreadable(what, "is not a record of failover") from error
    if not isinstance(written, int) or written > FORMAT:
        raise Refused(
            f"{what} was written by a newer failover (format {written}, this one reads {FORMAT})",
            hint="install the newer failover on this host",
        )
    try:
        record: _R = _record(kind, plain)
    except (ValueError, TypeError, KeyError) as error:
        raise Unreadable(what, f"cannot be understood ({error})") from error
    return record


# --- plain data ----------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _record(kind: Any, plain: Any) -> Any:
    if not isinstance(plain, dict):
        raise TypeError(f"{kind.__name__} is {plain!r}")
    hints = _hints(kind)
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in plain
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise KeyError(f"{kind.__name__} has no {', '.join(missing)}")
    return kind(**{name: _typed(hints[name], plain[name]) for name in hints if name in plain})


def _typed(kind: Any, plain: Any) -> Any:
    """Plain data as the type that a field declares."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, plain)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_typed(arguments[0], entry) for entry in plain)
        return tuple(_typed(argument, entry) for argument, entry in zip(arguments, plain, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        return frozen_map({_typed(arguments[0], key): _typed(arguments[1], entry) for key, entry in plain.items()})
    if kind is Timing:
        return _timing(plain)
    if dataclasses.is_dataclass(kind):
        return _record(kind, plain)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(plain)
    return _scalar(kind, plain)


def _timing(plain: Any) -> Timing:
    """Of others: not checked as those of cluster.yaml are, but such that one can reckon with them."""
    if isinstance(plain, str) and plain in PROFILES:
        return PROFILES[plain]  # as formats before 3 have it
    timing: Timing = _record(Timing, plain)
    if not timing.sane:
        raise ValueError("terms that are none")
    return timing


def _one_of(kinds: tuple[Any, ...], plain: Any) -> Any:
    """The member of a union that fits: an exact scalar type first, so that 1, 1.0 and True stay what they are."""
    if plain is None and type(None) in kinds:
        return None
    if type(plain) in kinds:
        return plain
    problem: Exception = TypeError(f"{plain!r} fits none of {', '.join(getattr(k, '__name__', str(k)) for k in kinds)}")
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return _typed(kind, plain)
        except (TypeError, ValueError, KeyError) as error:
            problem = error
    raise problem


def _scalar(kind: Any, plain: Any) -> Any:
    if kind is Any or type(plain) is kind:
        return plain
    if kind is float and type(plain) is int:
        return plain
    raise TypeError(f"{plain!r} is not {getattr(kind, '__name__', kind)}")
