"""The forced command: all that another host's key can do here is make a generation of a vserver which that host owns.

    command="PYTHON -I -m agents.replication.receive --from hostA",restrict ssh-ed25519 …

    state NAME EPOCH                          → {generation, epoch, checksum, diverged, heard, received_s}
    scan NAME EPOCH                           → what the replica holds
    begin NAME EPOCH GENERATION NEED_BYTES    → an empty staging
    rsync --server … NAME/EPOCH/GENERATION    → into that staging, and nowhere else
    commit NAME EPOCH GENERATION [HEARD] < change  → {missing, salvaged}
    same NAME EPOCH GENERATION HEARD          → it is complete as of then, though nothing was sent
    abort NAME EPOCH GENERATION

What it can be asked by hand: `receive --authorize hostA < hostA.pub` prints that line for the key of hostA.

Rule 1: who calls is said by the key. Whether it may is said by told.json, the leader's word as this host's agent last
        heard it: the caller must own the vserver at exactly the epoch that it names.
Rule 2: every argument is parsed into what it must be; nothing of the request is passed on to a program.
Rule 3: what is refused is one JSON line with the error's exit code. It runs once per verb, so it imports little.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.replication import incoming, received, rsync
from agents.replication.beneath import scan
from agents.replication.incoming import Request
from agents.replication.manifest import FILE, Entries, encode_entries, text
from agents.replication.record import VSERVERS, Place, check_name
from agents.replication.salvage import acknowledged, unshipped
from failover.boot import boot_time
from failover.errors import BadInput, Denied, FailoverError, Refused, Unsafe

TOLD = Path("/run/failover/told.json")
_TOLD_WAIT_S, _TOLD_POLL_S = 2.0, 0.05
_PUBLIC_KEY = re.compile(r"(ssh-ed25519|ecdsa-sha2-nistp256|ssh-rsa) [A-Za-z0-9+/=]+")
_LIMIT_BYTES, _KEY_BYTES = 1 << 30, 1 << 16
_USAGE = """\
usage: receive --authorize HOST < HOST.pub
       receive --from HOST [--vservers DIRECTORY] [--told FILE]"""


@dataclass(frozen=True)
class Receiver:
    caller: str
    vservers: Path = VSERVERS
    told: Path = TOLD

    def answer(self, command: str, stdin: Callable[[], bytes]) -> bytes:
        """Obey one request, or raise."""
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise Denied("only replicas are received here") from error
        transfer = rsync.server_request(words)
        if transfer is not None:
            self._serve(transfer)
        match words:
            case ["state", name, epoch]:
                self.authorize(name, _number(epoch))
                return self._state(Place(name, self.vservers))
            case ["scan", name, epoch]:
                self.authorize(name, _number(epoch))
                return self._scan(Place(name, self.vservers))
            case ["begin", name, epoch, number, need]:
                request = self._request(name, epoch, number)
                incoming.begin(request, _number(need), self.vservers)
                return b"{}"
            case ["commit", name, epoch, number, *heard] if len(heard) <= 1:
                return self._commit(self._request(name, epoch, number), stdin(), *heard)
            case ["same", name, epoch, number, heard]:
                request = self._request(name, epoch, number)
                incoming.same(request, heard, lambda: self.authorize(name, request.epoch), self.vservers)
                return b"{}"
            case ["abort", name, epoch, number]:
                incoming.abort(self._request(name, epoch, number), self.vservers)
                return b"{}"
        raise Denied("only replicas are received here")

    def authorize(self, name: str, epoch: int) -> None:
        """Raises unless the caller owns the vserver at this epoch, as far as this host has been told."""
        check_name(name)
        end = time.monotonic() + _TOLD_WAIT_S
        owner, told_epoch = self._told(name)
        while told_epoch < epoch and time.monotonic() < end:  # our own agent may be about to hear of it
            time.sleep(_TOLD_POLL_S)
            owner, told_epoch = self._told(name)
        if told_epoch < epoch:
            raise Refused(f"this host has not yet been told of epoch {epoch} of {name}", hint="try again")
        if told_epoch > epoch:
            raise Unsafe(f"epoch {epoch} of {name} is over; epoch {told_epoch} has begun")
        if owner != self.caller:
            raise Unsafe(f"{name} belongs to {owner} at epoch {epoch}, not to {self.caller}")

    def _told(self, name: str) -> tuple[str, int]:
        try:
            assignment = json.loads(self.told.read_bytes())["assignments"].get(name)
            return (str(assignment["owner"]), int(assignment["epoch"])) if assignment else ("nobody", 0)
        except FileNotFoundError:
            return "nobody", 0
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FailoverError(f"{self.told} cannot be read ({error})", hint="restart this host's agent") from error

    def _request(self, name: str, epoch: str, number: str) -> Request:
        request = Request(name, self.caller, _number(epoch), _number(number))
        self.authorize(name, request.epoch)
        return request

    def _state(self, place: Place) -> bytes:
        """`heard` is before all that the caller does next; `received_s`: how old the replica is by what we know."""
        heard, record, known_at = received.moment(), place.load(), received.at(place)
        said = {field: getattr(record, field) for field in ("generation", "epoch", "checksum", "diverged")}
        age_s = None if known_at is None else boot_time() - known_at
        return json.dumps({**said, "heard": heard, "received_s": age_s}).encode()

    def _commit(self, request: Request, raw: bytes, heard: str = "") -> bytes:
        missing, kept = incoming.commit(
            request, raw, lambda: self.authorize(request.name, request.epoch), self.vservers, heard=heard
        )
        return json.dumps({"missing": [text(path) for path in missing], "salvaged": str(kept) if kept else ""}).encode()

    def _scan(self, place: Place) -> bytes:
        with place.locked(timeout_s=10.0):
            found: Entries = scan(place.tree, deep=True) if place.tree.is_dir() else {}
            doubtful: list[bytes] = []
            if place.load().diverged and acknowledged(place, self.caller) is not None:
                doubtful = [path for path in unshipped(place, self.caller).written if found[path].kind == FILE]
            return encode_entries(found, doubtful)

    def _serve(self, transfer: rsync.ServerRequest) -> None:
        """Become the rsync server of a staging that was begun; does not return."""
        place = Place(transfer.vserver, self.vservers)
        self.authorize(place.name, transfer.epoch)
        staging = place.staging(transfer.epoch, transfer.generation)
        if place.live.exists() or not staging.is_dir():
            raise Refused(f"generation {transfer.generation} of {place.name} was not begun here", hint="begin again")
        incoming.hold_transfer(place)
        if place.load().commit is not None:
            raise Refused(f"generation {transfer.generation} of {place.name} is complete", hint="begin again")
        os.chdir(staging)  # whoever renames the replica holds the lock that we have now: it is there, or it is not
        argv = rsync.serve(transfer, str(place.tree))
        os.execvpe(argv[0], argv, {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"})


def authorized_line(host: str, public_key: str, python: str, *, vservers: Path = VSERVERS, told: Path = TOLD) -> str:
    """The line of root's authorized_keys that lets `host` send replicas here, and nothing else."""
    check_name(host)
    key = _PUBLIC_KEY.match(public_key)
    if key is None:
        raise BadInput(
            f"not a public key: {public_key[:40]!r}", hint=f"give the file id_ed25519.pub that {host} has made"
        )
    words = [python, "-I", "-m", "agents.replication.receive", "--from", host]
    if vservers != VSERVERS:
        words += ["--vservers", str(vservers)]
    if told != TOLD:
        words += ["--told", str(told)]
    command = shlex.join(words).replace('"', '\\"')
    return f'command="{command}",restrict {key[0]} failover:{host}'


def main(arguments: Sequence[str]) -> int:
    try:
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        if options.keys() == {"--authorize"}:
            return _authorize(options["--authorize"])
        receiver = Receiver(
            options["--from"], Path(options.get("--vservers", VSERVERS)), Path(options.get("--told", TOLD))
        )
    except (KeyError, ValueError):
        print(_USAGE, file=sys.stderr)
        return BadInput.exit_code
    command = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    try:
        sys.stdout.buffer.write(receiver.answer(command, _stdin))
        return 0
    except FailoverError as error:
        message, hint, code = error.message, error.hint, error.exit_code
    except OSError as error:
        message, hint, code = f"{error.strerror}: {error.filename or ''}".rstrip(": "), "", FailoverError.exit_code
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message, hint, code = "no space left", f"make room under {receiver.vservers}", Refused.exit_code
    print(message, file=sys.stderr)
    if not command.startswith("rsync "):  # an rsync client would take an answer for its protocol
        sys.stdout.write(json.dumps({"error": message, "hint": hint}))
    return code


def _authorize(host: str) -> int:
    try:
        print(authorized_line(host, sys.stdin.buffer.read(_KEY_BYTES).decode("utf-8", "replace"), sys.executable))
        return 0
    except FailoverError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _stdin() -> bytes:
    raw = sys.stdin.buffer.read(_LIMIT_BYTES + 1)
    if len(raw) > _LIMIT_BYTES:
        raise Refused("the change is too large")
    return raw


def _number(word: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", word):
        raise BadInput(f"not a number: {word!r}")
    return int(word)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
