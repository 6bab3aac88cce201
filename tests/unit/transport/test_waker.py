"""A waker is closed by its owner while others may still wake it."""

from __future__ import annotations

import os
import threading

from enginery.transport.channel import Waker


def test_waking_a_closed_waker_touches_no_other_descriptor() -> None:
    begin, failures = threading.Barrier(2), []
    for _ in range(200):
        waker = Waker()

        def wake(waker: Waker = waker) -> None:
            begin.wait()
            try:
                for _ in range(20):
                    waker.wake()
            except OSError as error:
                failures.append(error)

        thread = threading.Thread(target=wake)
        thread.start()
        begin.wait()
        waker.close()
        # Whoever opens something now gets the number that the waker had.
        descriptor = (
            os.eventfd(0, os.EFD_NONBLOCK) if hasattr(os, "eventfd") else os.open(os.devnull, os.O_RDWR)
        )
        thread.join()
        try:
            written = os.read(descriptor, 8)
        except BlockingIOError:
            written = b""
        os.close(descriptor)
        assert written == b""
    assert failures == []
