"""fence_lab, the fence agent of a lab's hosts: what failover/fencing knows of a device, and no more."""

from __future__ import annotations

from pathlib import Path

from failover.lab.place import CONTROL

ASKS, SAYS = ".asks", ".says"
AGENT = "fence_lab"
PLACE = Path("/opt/failover-lab")  # where a host finds it; what Python lies in is as on the machine

PROGRAM = f"""#!/bin/sh
# A switched outlet of the lab: action and plug on stdin, as fence-agents speak.
while read -r line; do
  case "$line" in action=*) action="${{line#action=}}";; plug=*) plug="${{line#plug=}}";; esac
done
outlet={CONTROL}/outlet-$$
echo "$action $plug" > "$outlet.new"
mv "$outlet.new" "$outlet{ASKS}"
while [ ! -e "$outlet{SAYS}" ]; do sleep 0.02; done
code=$(cat "$outlet{SAYS}")
rm "$outlet{SAYS}"
exit "$code"
"""


def install(root: Path) -> None:
    """Into what a host has written over the machine's root file system."""
    place = root / PLACE.relative_to("/")
    place.mkdir(parents=True)
    (place / AGENT).write_text(PROGRAM)
    (place / AGENT).chmod(0o755)
