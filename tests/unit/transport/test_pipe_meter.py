"""How much was written to a pipe, whoever has read how much of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginery.transport.pipe_meter import UNKNOWN, PipeMeter
from enginery.transport.status_page import PageWatch, StatusPage


class Site:
    """A pipe, with a meter at each of its ends."""

    def __init__(self, path: Path) -> None:
        self.watch = PageWatch(path)
        self.page = StatusPage.create(path)
        self.reading, self.writing = os.pipe()
        self.readers = self.watch.meter(1)
        self.writers = self.page.meter(1)

    def read(self, size_bytes: int) -> None:
        self.readers.begin()
        self.readers.end(len(os.read(self.reading, size_bytes)))

    def close(self) -> None:
        self.watch.close()
        self.page.close()
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "page")
    yield site
    site.close()


def test_reading_changes_nothing_and_writing_does(site: Site) -> None:
    totals = [site.writers.written(site.writing)]
    os.write(site.writing, b"four")
    totals.append(site.writers.written(site.writing))
    for size_bytes in (1, 100):
        site.read(size_bytes)
        totals.append(site.writers.written(site.writing))
    os.write(site.writing, b"abc")
    totals.append(site.writers.written(site.writing))
    assert totals == [0, 4, 4, 4, 7]
    assert repr(site.readers) == "<PipeMeter: 4 bytes were read>"


def test_while_somebody_reads_for_long_nobody_can_tell(site: Site) -> None:
    os.write(site.writing, b"four")
    site.readers.begin()
    assert site.writers.written(site.writing) == UNKNOWN
    os.read(site.reading, 100)
    assert site.writers.written(site.writing) == UNKNOWN
    site.readers.end(4)
    assert site.writers.written(site.writing) == 4


def test_streams_have_meters_of_their_own(site: Site) -> None:
    site.readers.begin()
    site.readers.end(5)
    assert site.page.meter(0).written(site.writing) == 0
    assert site.page.meter(1).written(site.writing) == 5


def test_what_is_no_pipe_any_more(site: Site) -> None:
    spare = os.dup(site.writing)
    os.close(spare)
    with pytest.raises(OSError, match="Bad file descriptor"):
        site.writers.written(spare)


def test_a_meter_outlives_no_page(tmp_path: Path) -> None:
    page = StatusPage.create(tmp_path / "page")
    meter: PipeMeter = page.meter(0)
    page.close()
    with pytest.raises(ValueError, match="released"):
        meter.begin()
