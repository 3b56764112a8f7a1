"""Leave no room on a small disk."""

import contextlib
from pathlib import Path


def fill(disk: Path) -> Path:
    """Return a file that takes all the room that there is."""
    path = disk / "filling"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return path
