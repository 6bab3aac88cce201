"""ipyparallel's path to the errors of its launchers. They live in `enginery.errors`."""

from enginery.errors import LauncherError, NotRunning, ProcessStateError, UnknownStatus

__all__ = ["LauncherError", "NotRunning", "ProcessStateError", "UnknownStatus"]
