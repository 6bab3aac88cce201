"""The only logging set-up. Every process of a cluster calls it once, before anything else happens there.

All other code only says `logging.getLogger("enginery.controller")` and the like. Used as a library, in a
user's process, enginery sets nothing up: what is logged there is the user's to configure.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import TextIO

LEVEL_VARIABLE = "ENGINERY_LOG_LEVEL"
ROOT = "enginery"
_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s[%(process)d]: %(message)s"


def set_up_logging(*, path: str | os.PathLike[str] | None = None, level: str | int | None = None) -> None:
    """Send what enginery logs to a file, or to standard error, with times in UTC.

    Processes of a cluster have their standard error in a log file already, so most give no `path`. The file
    gets mode 0600. `level` is a name or number of `logging`, default INFO, or what ``ENGINERY_LOG_LEVEL``
    says. Calling it again replaces the earlier set-up. Raises ValueError for an unknown level.
    """
    formatter = logging.Formatter(_FORMAT, datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr) if path is None else _PrivateFile(Path(path))
    handler.setFormatter(formatter)
    logger = logging.getLogger(ROOT)
    take_down_logging()
    logger.addHandler(handler)
    logger.setLevel(_level(level))
    logger.propagate = False


def take_down_logging() -> None:
    """Undo `set_up_logging`, closing its file."""
    logger = logging.getLogger(ROOT)
    for handler in tuple(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


class _PrivateFile(logging.StreamHandler[TextIO]):
    """Appends to a file that nobody else may read, and closes it."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        super().__init__(os.fdopen(descriptor, "a", encoding="utf-8"))

    def close(self) -> None:
        super().close()
        self.stream.close()


def _level(given: str | int | None) -> int:
    wanted = os.environ.get(LEVEL_VARIABLE, "INFO") if given is None else given
    if isinstance(wanted, int):
        return wanted
    levels = logging.getLevelNamesMapping()
    try:
        return levels[wanted.upper()]
    except KeyError:
        known = "DEBUG, INFO, WARNING, ERROR, CRITICAL"
        raise ValueError(f"{wanted!r} is not a log level; use one of {known}") from None
