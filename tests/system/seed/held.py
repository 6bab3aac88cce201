"""What the tests of the seed share: their patience, and an engine that is kept busy."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import enginery as ipp

PATIENCE_S = 30.0


def each(rc: ipp.Client, value: Any) -> list[Any]:
    """The same from every engine."""
    return [value] * len(rc)


def busy(rc: ipp.Client, engine: int = 0) -> tuple[ipp.AsyncResult, Callable[[], None]]:
    """Keep an engine busy until the returned function is called."""
    path = f"/tmp/enginery-test-{uuid.uuid4().hex}"
    os.mkfifo(path)
    ar = rc[engine].apply_async(lambda p: Path(p).read_text(), path)
    let_go = threading.Event()

    def end() -> None:
        if not let_go.is_set():
            let_go.set()
            with open(path, "w") as pipe:
                pipe.write("done")
            os.unlink(path)

    while rc.queue_status(engine)["queue"] == 0:
        assert not ar.done()
    return ar, end
