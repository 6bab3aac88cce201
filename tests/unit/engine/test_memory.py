"""What an engine says that it holds, and how it lets go."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from enginery.engine.memory import OBJECTS_TOLD, Freeing, memory_use
from enginery.transport.sharing import Sharing

NOTHING = Sharing(None, "", limit_bytes=0)


def test_the_largest_objects_are_named() -> None:
    array = np.zeros(1000)
    namespace: dict[str, Any] = {
        "big": array,
        "same": array,
        "frame": [array],
        "np": np,
        "f": test_the_largest_objects_are_named,
        "Class": Freeing,
        "_": array.copy(),
        "In": [array.copy()],
        1: array.copy(),
    }
    use = memory_use(namespace, NOTHING, blobs=5, results=6)
    assert [(each.name, each.kind) for each in use.objects] == [("frame", "list"), ("big", "ndarray")]
    assert use.objects[1].size_bytes == 8000
    assert use.named == sum(each.size_bytes for each in use.objects)
    assert (use.blobs, use.results, use.lent, use.idle) == (5, 6, 0, 0)
    assert use.resident > 1_000_000


def test_many_objects_are_counted_and_a_few_named() -> None:
    use = memory_use({f"a{n:02}": np.zeros(n) for n in range(30)}, NOTHING, blobs=0, results=0)
    assert len(use.objects) == OBJECTS_TOLD
    assert use.named == 8 * sum(range(30))
    assert use.objects[0].name == "a29"


def test_odd_names_can_be_said() -> None:
    use = memory_use({"x" * 500: 1, "\ud800": 2}, NOTHING, blobs=0, results=0)
    assert all(len(each.name) <= 100 for each in use.objects)
    assert all(each.name.encode() for each in use.objects)


def test_freeing_waits_for_the_main_thread() -> None:
    freeing = Freeing()
    assert not freeing.is_wanted
    freeing.ask()
    assert freeing.is_wanted
    main = threading.Thread(target=freeing.on_done)
    main.start()
    assert freeing.wait(10.0)
    main.join()
    assert not freeing.is_wanted


def test_what_does_not_come_in_time_does_not_come() -> None:
    freeing = Freeing()
    freeing.ask()
    assert not freeing.wait(0.0)
    assert not freeing.is_wanted
