"""Maps: every item exactly once and in order, however they are cut and in whatever order they come back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enginery.client.partition import ChunkPlanner, Reassembly, split_evenly


@given(total=st.integers(0, 500), parts=st.integers(1, 40))
def test_even_parts(total: int, parts: int) -> None:
    found = split_evenly(total, parts)
    assert [item for part in found for item in part] == list(range(total))
    assert len(found) == min(total, parts)
    assert not found or max(map(len, found)) - min(map(len, found)) <= 1


@given(
    total=st.integers(0, 5000),
    engines=st.integers(1, 9),
    chunksize=st.none() | st.integers(1, 700),
    is_known=st.booleans(),
    item_s=st.sampled_from([0.0, 1e-7, 1e-4, 0.02, 3.0]),
    choose=st.randoms(use_true_random=False),
)
def test_chunks(
    total: int, engines: int, chunksize: int | None, is_known: bool, item_s: float, choose: object
) -> None:
    planner = ChunkPlanner(engines=engines, total=total if is_known else None, chunksize=chunksize)
    pieces: Reassembly[range] = Reassembly()
    under_way: list[range] = []
    start = 0
    while start < total or under_way:
        window = planner.window()
        while start < total and (window is None or len(under_way) < window):
            size = planner.next_size(total - start, is_rest=True)
            assert 1 <= size <= total - start
            if chunksize is not None:
                assert size == min(chunksize, total - start)
            elif total <= 1000 and is_known:
                assert size == 1
            under_way.append(range(start, start + size))
            start += size
            window = planner.window()
        part = under_way.pop(choose.randrange(len(under_way)))  # type: ignore[attr-defined]
        planner.on_finished(len(part), len(part) * item_s)
        pieces.add(part.start, len(part), part)
    assert [item for part in pieces.in_order() for item in part] == list(range(total))
    assert pieces.count == total
