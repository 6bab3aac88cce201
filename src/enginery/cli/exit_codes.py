"""What the command line's exit codes mean, the same as those of ipyparallel's commands."""

from __future__ import annotations

from enginery.errors import ClusterAlreadyRunning, ClusterNotFound

FAILED = 1
ALREADY_RUNNING = 10
NOTHING_TO_STOP = 11
NO_SUCH_CLUSTER = 12


def exit_code(error: BaseException) -> int:
    """The exit code of a command that ended with this error."""
    if isinstance(error, ClusterAlreadyRunning):
        return ALREADY_RUNNING
    if isinstance(error, ClusterNotFound):
        return NO_SUCH_CLUSTER
    return FAILED
