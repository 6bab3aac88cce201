"""What one thread has read and fulfilled, the thread that reads next is told of."""

from __future__ import annotations

import threading

from enginery.client.reading import ReaderRole


def test_fulfilling_wakes_the_thread_that_took_the_role_meanwhile() -> None:
    role = ReaderRole()
    assert role.take()
    role.leave()  # with news in hand, which it will act on now
    taken, done = threading.Event(), threading.Event()

    def read() -> None:
        assert role.take()
        taken.set()
        assert done.wait(10.0)
        role.leave()

    other = threading.Thread(target=read)
    other.start()
    assert taken.wait(10.0)
    role.wake_satisfied()
    assert role.waker.clear()  # or it would poll for what has come already
    done.set()
    other.join()
    role.wake_satisfied()
    assert not role.waker.clear()  # nobody reads: nobody is to be woken
    role.waker.close()
