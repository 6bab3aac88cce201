"""Memory that is given back."""

from __future__ import annotations

from enginery.transport.footprint import GIVE_BACK_BYTES, GivingBack, give_back, measure


def test_memory_is_given_back_when_much_of_it_has_come_free() -> None:
    given: list[float] = []
    giving = GivingBack(lambda: given.append(now))
    for now, used_bytes in [
        (1.0, GIVE_BACK_BYTES - 1),
        (1.1, 0),
        (1.2, 3 * GIVE_BACK_BYTES),
        (1.3, 2 * GIVE_BACK_BYTES + 1),
        (1.4, 2 * GIVE_BACK_BYTES),
        (1.5, 0),
        (2.3, 0),
        (2.5, 0),
        (9.0, 0),
    ]:
        giving.look(used_bytes, now=now)
    assert given == [1.4, 2.5], "not more often than once a second, and once for each peak"


def test_giving_back_does_no_harm() -> None:
    kept = bytes(1 << 20)
    give_back()
    assert len(kept) == 1 << 20
    assert measure()[0] > 0
