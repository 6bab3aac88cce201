"""A cluster's directory before a start and after an end.

The lock of the directory says that a cluster of this name lives. Whoever starts one takes it and hands it
down: an inherited descriptor shares it, so the name is held for as long as its host is there, whoever started
that and however it ends.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from enginery.errors import ClusterAlreadyRunning
from enginery.transport.addresses import ClusterDirectory

HOST_LOG = "host.log"
LOG_LIMIT_BYTES = 4 << 20
LOG_KEPT_BYTES = 1 << 20
"""What a log that has grown above the limit is cut to when its cluster starts again."""
_TAIL_LINES = 20


def prepare(directory: ClusterDirectory, *, restore: bool = False) -> None:
    """Take away what an earlier cluster has left that did not end in order, and cut its logs.

    If it is to be restored, what that needs stays. The caller holds the lock.
    """
    directory.withdraw(keep_pages=restore)
    if not restore:
        _forget(directory)
    directory.create()
    for path in directory.logs.glob("*.log"):
        size = path.stat().st_size
        if size > LOG_LIMIT_BYTES:
            with open(path, "r+b") as file:
                file.seek(size - LOG_KEPT_BYTES)
                kept = file.read().partition(b"\n")[2]
                file.seek(0)
                file.write(kept)
                file.truncate()


def sweep(directory: ClusterDirectory, *, keep_directory: bool) -> None:
    """Take away what a cluster that has ended left, if anything, or all of it but history and logs."""
    if not directory.path.exists():
        return
    # Another cluster may have taken the name meanwhile, or the directory may have gone.
    with contextlib.suppress(ClusterAlreadyRunning, FileNotFoundError), directory.lock():
        if keep_directory:
            can_be_restored = directory.resume_file.exists()
            directory.withdraw(keep_pages=can_be_restored)
            if not can_be_restored:
                _forget(directory)
            directory.lock_file.unlink(missing_ok=True)
        else:
            directory.remove()


def last_lines(logs: Path, count: int = _TAIL_LINES) -> str:
    """The last lines of each log, under its name if there are several."""
    parts = []
    for path in sorted(logs.glob("*.log")):
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        if text:
            parts.append((path.name, "\n".join(text.splitlines()[-count:])))
    if len(parts) == 1:
        return parts[0][1]
    return "\n".join(f"{name}:\n{text}" for name, text in parts)


def _forget(directory: ClusterDirectory) -> None:
    """What another controller would need to go on with it."""
    from enginery.host.files import KEYS_FILE

    directory.resume_file.unlink(missing_ok=True)
    (directory.path / KEYS_FILE).unlink(missing_ok=True)
