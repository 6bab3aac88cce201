"""The entry of the command ``enginery``.

Processes that a cluster starts come in here too, with a spec, and take a short way: what they do not need,
the command line's own imports above all, is time that somebody waits for his cluster.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    arguments = sys.argv[1:]
    if "--spec" in arguments:
        from enginery.cli.processes import run

        sys.exit(run(arguments))
    from enginery.cli.commands import program

    program(prog_name="enginery")
