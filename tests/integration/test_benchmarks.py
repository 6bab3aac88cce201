"""A benchmark session runs in a process of its own, answers, and leaves nothing."""

from __future__ import annotations

import os

import psutil

from benchmarks.catalogue import MEMCPY
from benchmarks.harness import MARK, measure_session


def marked() -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if is_marked(process)]


def is_marked(process: psutil.Process) -> bool:
    try:
        return MARK in process.environ()
    except psutil.Error:
        return False


def test_a_session_answers_and_ends() -> None:
    assert MARK not in os.environ
    found = measure_session("bare interpreter", ["import", "start_2"], timeout_s=30)
    assert 0 < found["import"]["value"] < 5
    assert 0 < found["start_2"]["value"] < 5
    assert marked() == []


def test_the_raw_round_trip() -> None:
    found = measure_session("raw 0MQ, routed, ipc", ["round_trip_one"], timeout_s=30)
    assert 0 < found["round_trip_one"]["value"] < 1, found
    assert marked() == []


def test_data_in_a_session_without_engines() -> None:
    found = measure_session(MEMCPY, ["small_argument", "argument_16", "scatter_gather_256"], timeout_s=50)
    assert 0 < found["small_argument"]["value"] < found["argument_16"]["value"] < 1, found
    assert found["scatter_gather_256"]["value"] > 0.01, found
    assert marked() == []


def test_a_session_out_of_time_is_a_failure_and_ends() -> None:
    found = measure_session("process pool", ["map_chunks"], timeout_s=0.05)
    assert "timed out" in found["map_chunks"]["error"]
    assert marked() == []
