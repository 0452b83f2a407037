"""Debian packages into an empty directory, by mmdebstrap or, where only that is installed, debootstrap.

Rule 1: the archive and its keys are those that this host's own apt uses; no host name stands here. Only Debian's:
        others call their releases bookworm too.
Rule 2: no package may start a daemon meanwhile.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.command import CommandFailed
from agents.command import run as run_command
from agents.isolation import tools
from failover.errors import BadInput, Denied, FailoverError, Refused, Unreachable

_DEBIAN = "Debian"  # the origin in its Release files, also those of mirrors
_ROLLING = {"sid", "unstable", "testing", "experimental"}  # they have no -updates and no -security
_NO_DAEMONS = "#!/bin/sh\nexit 101\n"  # policy-rc.d: "action forbidden"
_NOBODY = "localhost"  # what packages that write down the host's name shall find


@dataclass(frozen=True)
class Source:
    """One line of apt's sources."""

    uri: str
    release: str
    components: tuple[str, ...] = ("main",)
    keyring: str | None = None  # None: whatever apt trusts
    origin: str = _DEBIAN  # who made it, by its own word; '' before apt's first update

    def __str__(self) -> str:
        signed = f"[signed-by={self.keyring}] " if self.keyring else ""
        return f"deb {signed}{self.uri} {self.release} {' '.join(self.components)}"


def bootstrap(suite: str, packages: Sequence[str], tree: Path, mirror: str | None = None) -> None:
    """Install a minimal system and `packages`. Raises a FailoverError that says what the operator can do."""
    wanted = (Source(mirror, suite, keyring=_keyring()),) if mirror else host_sources(suite)
    try:
        if shutil.which("mmdebstrap"):
            _mmdebstrap(suite, packages, wanted, tree)
        elif shutil.which("debootstrap"):
            _debootstrap(suite, packages, wanted, tree)
        else:
            raise Refused("neither mmdebstrap nor debootstrap is installed", hint="apt-get install mmdebstrap")
    except CommandFailed as failed:
        raise explained(failed, suite) from failed


def architecture() -> str:
    return run_command(["dpkg", "--print-architecture"], timeout_s=30).stdout.decode().strip()


# --- where it comes from ----------------------------------------------------------------------------------------------


def host_sources(suite: str) -> tuple[Source, ...]:
    listing = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)"
    done = run_command(["apt-get", "indextargets", "--format", listing, "Created-By: Packages"], timeout_s=60)
    found = translated(suite, listed(done.stdout.decode()), _codename())
    if not found:
        raise Refused(
            f"this host's apt has no Debian archive to take {suite} from",
            hint="name one with --mirror URL, or add it to apt's sources",
        )
    return found


def listed(text: str) -> tuple[Source, ...]:
    """What `apt-get indextargets` printed, the components of one release together."""
    components: dict[tuple[str, str, str], list[str]] = {}
    for line in text.splitlines():
        uri, release, component, origin = line.split("|")
        components.setdefault((uri, release, origin), []).append(component)
    return tuple(
        Source(uri, release, tuple(dict.fromkeys(found)), _keyring(), "" if origin.startswith("$") else origin)
        for (uri, release, origin), found in components.items()
    )


def translated(suite: str, host: Iterable[Source], codename: str) -> tuple[Source, ...]:
    """The sources of this host's own release, made those of another suite; what is not Debian's is left out.

    Where apt knows no origin yet, that which is not signed by Debian is refused later.
    """
    host = tuple(host)
    debian = [source for source in host if source.origin == _DEBIAN]
    unknown = [source for source in host if not source.origin]
    found = []
    for source in debian or unknown:
        pocket = source.release.removeprefix(codename)
        of_release = source.release.startswith(codename) and pocket in ("", "-updates", "-security")
        if of_release and not (pocket and suite in _ROLLING):
            found.append(Source(source.uri, suite + pocket, source.components, source.keyring))
    return tuple(found)


def _keyring() -> str | None:
    """Debian's own keyring: its package puts it into the new tree under the same path."""
    path = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    return str(path) if path.exists() else None


def _codename() -> str:
    found = re.search(r'^VERSION_CODENAME="?([\w-]+)', Path("/etc/os-release").read_text(), re.MULTILINE)
    return found[1] if found else "stable"


def _acquire_options() -> tuple[str, ...]:
    """How this host's apt reaches an archive: proxies, certificates."""
    dump = run_command(["apt-config", "dump"], timeout_s=30).stdout.decode()
    return tuple(line for line in dump.splitlines() if re.match(r'Acquire::https?::[^ ]* "[^"]', line))


# --- the two tools ----------------------------------------------------------------------------------------------------


def _mmdebstrap(suite: str, packages: Sequence[str], wanted: Sequence[Source], tree: Path) -> None:
    options = [f"--aptopt={option}" for option in _acquire_options()]
    include = f"--include={','.join(packages)}"
    tools.run(["mmdebstrap", "--variant=minbase", include, *options, suite, tree, *map(str, wanted)], hostname=_NOBODY)


def _debootstrap(suite: str, packages: Sequence[str], wanted: Sequence[Source], tree: Path) -> None:
    """In two stages: what forbids the daemons must be there before the packages are configured."""
    main = wanted[0]
    keyring = [f"--keyring={main.keyring}"] if main.keyring else []
    options = [*keyring, f"--components={','.join(main.components)}", f"--include={','.join(packages)}"]
    proxy = {
        f"{kind}_proxy": url for kind, url in re.findall(r'(https?)::Proxy "([^"]+)', "\n".join(_acquire_options()))
    }
    tools.run(["debootstrap", "--foreign", "--variant=minbase", *options, suite, tree, main.uri], env=proxy)
    policy = tree / "usr/sbin/policy-rc.d"
    policy.write_text(_NO_DAEMONS)
    policy.chmod(0o755)
    tools.run(["chroot", tree, "/debootstrap/debootstrap", "--second-stage"], hostname=_NOBODY)
    (tree / "etc/apt/sources.list").write_text("".join(f"{source}\n" for source in wanted))


def explained(failed: CommandFailed, suite: str) -> FailoverError:
    """What the tools print, in an operator's words."""
    said = failed.stderr
    if re.search(r"does not have a Release file|No such script", said):
        return BadInput(f"the archive has no suite {suite!r}", hint="bookworm and trixie are suites of Debian")
    unknown = re.search(r"(?:Unable to locate package|Couldn't find these debs:|package name) (\S+)", said)
    if unknown:
        return BadInput(f"{suite} has no package {unknown[1]!r}", hint="`apt-cache search WORD` finds names")
    if re.search(r"NO_PUBKEY|not signed|signature|Release signed by unknown key", said):
        return Denied(f"the archive of {suite} is not signed by a key that this host trusts: {said}")
    if re.search(
        r"Could not (resolve|connect)|Temporary failure|Unable to connect|unreachable|imed out|Failed getting", said
    ):
        return Unreachable(
            f"no archive for {suite} can be reached: {_reason(said)}",
            hint="does `apt-get update` work on this host? A tree that is in the cache needs no network",
        )
    return failed


def _reason(said: str) -> str:
    found = re.search(
        r"(?:Could not (?:resolve|connect)|Temporary failure|Unable to connect|Failed getting)[^|(]*", said
    )
    return found[0].strip() if found else said.split(" | ")[0]
