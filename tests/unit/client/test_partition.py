"""Which items go together, by hand; the properties are in tests/properties/test_partition.py."""

from __future__ import annotations

import pytest

from enginery.client.partition import CHUNK_S, ChunkPlanner, Reassembly, split_evenly


def test_parts_are_contiguous_and_the_larger_ones_come_first() -> None:
    assert split_evenly(10, 4) == [range(3), range(3, 6), range(6, 8), range(8, 10)]


def test_nobody_gets_an_empty_part() -> None:
    assert split_evenly(2, 4) == [range(1), range(1, 2)]
    assert split_evenly(0, 4) == []


def test_up_to_a_thousand_items_are_one_task_each() -> None:
    planner = ChunkPlanner(engines=4, total=1000)
    assert planner.is_decided
    assert planner.window() is None
    assert [planner.next_size(1000 - n, is_rest=True) for n in range(1000)] == [1] * 1000


def test_longer_maps_begin_with_single_items_and_wait_for_measurements() -> None:
    planner = ChunkPlanner(engines=2, total=1001)
    assert not planner.is_decided
    assert planner.window() == 6
    assert planner.next_size(1001, is_rest=True) == 1


def test_chunks_grow_with_what_comes_back_and_hold_about_50_ms() -> None:
    planner = ChunkPlanner(engines=2, total=1_000_000)
    size, sizes = 1, []
    for _ in range(5):
        planner.on_finished(size, size * 0.00005)
        size = planner.next_size(1_000_000, is_rest=True)
        sizes.append(size)
    assert sizes == [16, 256, 1000, 1000, 1000]
    assert sizes[-1] * 0.00005 == pytest.approx(CHUNK_S)


def test_the_rest_is_several_chunks_for_each_engine() -> None:
    planner = ChunkPlanner(engines=5, total=100_000)
    planner.on_finished(10_000, 0.02)
    assert planner.next_size(20_000, is_rest=True) == 20_000 // (4 * 5)


def test_the_tail_is_not_cut_finer_than_a_millisecond_of_work() -> None:
    planner = ChunkPlanner(engines=5, total=100_000)
    planner.on_finished(10_000, 0.1)  # 10 µs each
    assert planner.next_size(400, is_rest=True) == 100
    assert planner.next_size(7, is_rest=True) == 7


def test_slow_items_stay_single() -> None:
    planner = ChunkPlanner(engines=2, total=5000)
    planner.on_finished(1, 3.0)
    assert planner.next_size(4999, is_rest=True) == 1


def test_chunksize_is_obeyed_exactly() -> None:
    planner = ChunkPlanner(engines=2, total=None, chunksize=3)
    assert planner.is_decided
    assert planner.next_size(2, is_rest=False) == 0
    assert planner.next_size(8, is_rest=False) == 3
    assert planner.next_size(2, is_rest=True) == 2
    assert planner.next_size(0, is_rest=True) == 0


def test_the_first_thousand_of_an_iterator_are_single() -> None:
    planner = ChunkPlanner(engines=2)
    planner.on_finished(1, 0.000001)
    sizes = [planner.next_size(5000, is_rest=False) for _ in range(1001)]
    assert sizes[:1000] == [1] * 1000
    assert sizes[1000] == 16
    assert planner.window() == 6


def test_pieces_come_in_any_order() -> None:
    pieces: Reassembly[str] = Reassembly()
    pieces.add(5, 2, "b")
    assert pieces.at(0) is None
    pieces.add(0, 5, "a")
    assert pieces.at(0) == (5, "a")
    assert pieces.at(5) == (2, "b")
    assert list(pieces.in_order()) == ["a", "b"]
    assert pieces.count == 7


def test_a_piece_comes_once() -> None:
    pieces: Reassembly[str] = Reassembly()
    pieces.add(0, 1, "a")
    with pytest.raises(ValueError, match="a piece of 1 items at 0 does not belong here"):
        pieces.add(0, 1, "b")
    assert list(pieces.in_order()) == ["a"]
    assert pieces.count == 1
