"""What a task tells of itself while it runs: `publish_data`, and how far it is with `report`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from enginery.engine.output import OutputCollector
from enginery.engine.progress import ProgressMeter
from enginery.errors import TooLarge
from enginery.objects.whole import pack_whole
from enginery.protocol.messages import clean_text

VALUE_LIMIT_BYTES = 1 << 20
NAME_LIMIT = 1000
"""Characters of a name."""


class Outlet(NamedTuple):
    """Where what tasks tell of themselves goes."""

    output: OutputCollector
    progress: ProgressMeter


_outlet: Outlet | None = None
_outlet_pid = 0  # a forked child has a copy of the outlet that nobody reads


def publish_data(data: Mapping[str, Any]) -> None:
    """Show values of the running task to its client at once, as ``ar.data``, each under its name.

    Of several values under one name the last one counts. They are pickled here and now: later changes of an
    object do not show. Threads that a task has started may publish for it as long as it runs.

    Raises TypeError for anything but a dictionary with texts as its keys, TooLarge for a value of more than
    1 MiB, what pickling raises, and RuntimeError where no task runs; then nothing has been published.

    >>> publish_data({"epoch": 3, "loss": 0.25})  # doctest: +SKIP
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"publish_data takes a dictionary of names and values, not {type(data).__name__}")
    outlet = _outlet
    if outlet is None or _outlet_pid != os.getpid():
        raise RuntimeError("publish_data works inside a task of an engine only: this process runs none")
    packed = [(_checked_name(name), _packed(name, value)) for name, value in data.items()]
    for name, payload in packed:
        if not outlet.output.publish(name, payload):
            raise RuntimeError("publish_data works inside a task only: this thread's task has ended")


def report(fraction: float | None = None, text: str = "") -> None:
    """Say how far the running task is: it moves the task's own line wherever its progress is shown.

    `fraction` is from 0 to 1 (what is beyond is taken for the end of the range), None if it is not known;
    `text` is one line, of which the first 200 characters count. The last report stays with the task, as
    ``ar.report``, for every client and at any later time. A report costs a few microseconds, so it may
    stand in an inner loop: at most four a second are sent. Threads that a task has started may report for it.

    Raises TypeError for what is no number and no text. Where no task runs it does nothing, so a function that
    reports can be tried out anywhere.

    >>> for epoch in range(10):
    ...     report(epoch / 10, f"epoch {epoch}")
    """
    if fraction is not None:
        fraction = _checked_fraction(fraction)
    if not isinstance(text, str):
        raise TypeError(f"the text of a report is a text, not {type(text).__name__}")
    outlet = _outlet
    if outlet is not None and _outlet_pid == os.getpid():
        outlet.progress.report(fraction, text)


def publish_through(outlet: Outlet | None) -> None:
    """Let `publish_data` and `report` work in this process, or (None) no longer."""
    global _outlet, _outlet_pid
    _outlet, _outlet_pid = outlet, os.getpid()


def _checked_fraction(fraction: object) -> float | None:
    try:
        if isinstance(fraction, (str, bytes)):
            raise TypeError
        number = float(fraction)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(
            f"a report's fraction is a number from 0 to 1, or None, not {fraction!r}; "
            "a text comes second: report(None, 'loading')"
        ) from None
    return None if math.isnan(number) else min(max(number, 0.0), 1.0)


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the names under which values are published are texts, not {type(name).__name__}")
    if len(name) > NAME_LIMIT:
        raise ValueError(f"a name has at most {NAME_LIMIT} characters, not {len(name)}")
    return clean_text(name)


def _packed(name: str, value: Any) -> bytes:
    payload = pack_whole(value)
    if len(payload) > VALUE_LIMIT_BYTES:
        what = f"the value published as {name!r}"
        raise TooLarge(what, size_bytes=len(payload), limit_bytes=VALUE_LIMIT_BYTES)
    return payload
