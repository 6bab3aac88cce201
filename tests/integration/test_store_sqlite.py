"""The history in a file: what outlives a process, a full disk and a slow one, and what is left behind."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from enginery.controller.store import writer
from enginery.controller.store.sqlite import SqliteStore
from enginery.controller.store.tables import Tables
from enginery.errors import HistoryError
from enginery.ids import BlobId, ClientId, EngineId, TaskId, make_task_id
from enginery.protocol import history
from enginery.protocol.history import (
    BlobKept,
    BuffersKept,
    ClientSeen,
    HistoryFact,
    TaskAccepted,
    TaskDelivered,
    TaskEnded,
    TasksPurged,
)
from enginery.protocol.messages import Kind, Status, TaskOptions, TaskResult

OPTIONS = TaskOptions(Kind.CALL, BlobId(b"f" * 16), "square")


def task(number: int) -> TaskId:
    return make_task_id(ClientId(7), number)


def accepted(number: int, payload: bytes = b"call") -> TaskAccepted:
    return TaskAccepted(task(number), 1000.0 + number, OPTIONS, payload)


def ended(number: int, payload: bytes = b"result") -> TaskEnded:
    return TaskEnded(TaskResult(task(number), Status.OK, payload, engine=EngineId(0)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread and no descriptor may outlive a test."""
    threads, descriptors = set(threading.enumerate()), set(os.listdir("/proc/self/fd"))
    yield
    assert set(threading.enumerate()) <= threads
    assert set(os.listdir("/proc/self/fd")) <= descriptors


class Gate:
    """Holds up the writer inside an `on_committed`, as a disk would that takes its time."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self.opened.wait(10)


def journal_entries(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM journal").fetchone()[0])


# ---------------------------------------------------------------- the file


def test_only_the_user_can_read_the_files(path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(SqliteStore.open(path)) as store:
            store.append([accepted(1)])
            assert store.flush(10)
            modes = {name.name: stat.S_IMODE(name.stat().st_mode) for name in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {path.name: 0o600, f"{path.name}-wal": 0o600, f"{path.name}-shm": 0o600}
    assert [name.name for name in path.parent.iterdir()] == [path.name]


def test_a_loose_mode_is_tightened(path: Path) -> None:
    path.touch(0o644)
    SqliteStore.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_repr(path: Path) -> None:
    store = SqliteStore.open(path)
    assert repr(store) == f"<SqliteStore {path} open>"
    store.close()
    assert repr(store) == f"<SqliteStore {path} closed>"


def test_what_is_no_history_is_named_and_left_alone(path: Path) -> None:
    path.write_text("these are the holiday pictures\n" * 100)
    with pytest.raises(HistoryError, match=r"cannot be used .*not a database.*; move") as caught:
        SqliteStore.open(path)
    assert caught.value.path == str(path)
    assert path.read_text().startswith("these are the holiday pictures")


def test_a_file_of_another_format_is_named(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(HistoryError, match="it has format 99, this enginery writes 5"):
        SqliteStore.open(path)


def test_a_directory_that_is_missing_is_named(path: Path) -> None:
    with pytest.raises(HistoryError, match="No such file or directory"):
        SqliteStore.open(path.parent / "missing" / "history.sqlite")


@pytest.mark.parametrize(("durability", "level"), [("fast", 1), ("strict", 2)])
def test_durability(path: Path, durability: str, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def remember(*args: object, **options: object) -> sqlite3.Connection:
        opened.append(connect(*args, **options))  # type: ignore[call-overload]
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", remember)
    with closing(SqliteStore.open(path, durability=durability)) as store:  # type: ignore[arg-type]
        store.append([accepted(1)])
        assert store.flush(10)
        assert opened[0].execute("PRAGMA synchronous").fetchone() == (level,)
        assert opened[0].execute("PRAGMA journal_mode").fetchone() == ("wal",)


# ---------------------------------------------------------------- commits


def test_all_that_waits_is_one_commit(path: Path) -> None:
    gate = Gate()
    with closing(SqliteStore.open(path)) as store:
        store.append([accepted(0)], on_committed=gate)
        assert gate.entered.wait(10)
        committed: list[int] = []
        for number in range(1, 101):
            assert store.append([accepted(number)], on_committed=lambda n=number: committed.append(n))  # type: ignore[misc]
        assert store.statistics().commits == 1
        assert committed == []
        gate.opened.set()
        assert store.flush(10)
        assert store.statistics().commits == 2
        assert committed == list(range(1, 101))
        assert store.count() == 101


def test_a_full_queue_refuses_whole_batches(path: Path) -> None:
    gate = Gate()
    with closing(SqliteStore.open(path, queue_limit_bytes=10_000)) as store:
        store.append([accepted(0)], on_committed=gate)
        assert gate.entered.wait(10)
        taken = 0
        while store.append([accepted(1 + taken, b"x" * 900)]):
            taken += 1
        assert taken == 10
        assert store.statistics().queued_bytes <= 10_000
        never: list[str] = []
        assert not store.append([accepted(50, b"x" * 900)], on_committed=lambda: never.append("called"))
        assert store.append([accepted(60)])  # there is still room for a small one
        gate.opened.set()
        assert store.flush(10)
        assert store.append([accepted(70, b"x" * 20_000)])  # an empty queue takes any batch
        assert sorted(row.number for row in store.tasks()) == [*range(11), 60, 70]
        assert never == []
        assert store.statistics().queued_bytes == 0


def test_a_refused_batch_is_encoded_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is offered again: the loop of the controller does that every few milliseconds."""
    encoded: list[int] = []
    encode = history.encode_facts

    def count(facts: Sequence[HistoryFact]) -> bytes:
        encoded.append(len(facts))
        return encode(facts)

    monkeypatch.setattr(history, "encode_facts", count)
    gate = Gate()
    with closing(SqliteStore.open(path, queue_limit_bytes=10_000)) as store:
        store.append([accepted(0)], on_committed=gate)
        assert gate.entered.wait(10)
        assert store.append([accepted(1)])
        large = [accepted(2, b"x" * 6000), accepted(3, b"x" * 6000)]
        assert not any(store.append(large) for _ in range(10))
        assert encoded == [1, 1, 2]
        gate.opened.set()
        assert store.flush(10)
        committed: list[str] = []
        assert store.append(large, on_committed=lambda: committed.append("the last callback"))
        assert store.flush(10)
        assert store.append([accepted(number) for number in (4, 5, 6)])
        assert store.count() == 7
    assert encoded == [1, 1, 2, 3]
    assert committed == ["the last callback"]


def test_a_failing_callback_does_not_end_the_history(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(SqliteStore.open(path)) as store:
        store.append([accepted(1)], on_committed=[].pop)
        store.append([accepted(2)])
        assert store.count() == 2
    assert "IndexError: pop from empty list" in caplog.text


def test_asking_from_inside_a_callback_is_refused(path: Path) -> None:
    caught: list[str] = []
    with closing(SqliteStore.open(path)) as store:

        def ask() -> None:
            with pytest.raises(RuntimeError) as error:
                store.count()
            caught.append(str(error.value))

        store.append([accepted(1)], on_committed=ask)
        assert store.flush(10)
    assert caught == ["the history was asked from inside on_committed, which would wait for itself"]


def test_flush_gives_up_in_time(path: Path) -> None:
    gate = Gate()
    with closing(SqliteStore.open(path)) as store:
        store.append([accepted(0)], on_committed=gate)
        assert gate.entered.wait(10)
        assert store.flush(0.01) is False
        gate.opened.set()
        assert store.flush(10) is True


def test_close_commits_what_waits(path: Path) -> None:
    committed: list[int] = []
    store = SqliteStore.open(path)
    for number in range(1000):
        assert store.append([accepted(number)], on_committed=lambda n=number: committed.append(n))  # type: ignore[misc]
    store.close()
    assert committed == list(range(1000))
    with pytest.raises(ValueError, match="is closed; open it again"):
        store.count()
    with closing(SqliteStore.open(path)) as again:
        assert again.count() == 1000


# ---------------------------------------------------------------- journal and tables


def test_the_tables_are_filled_when_nothing_comes(path: Path) -> None:
    """And the journal is empty then: each fact is in one of the two."""
    with closing(SqliteStore.open(path)) as store:
        store.append([accepted(1), ended(1), TaskDelivered(task(1))])
        assert store.flush(10)
        watch = threading.Event()
        for _ in range(500):
            if store.statistics().unfilled_facts == 0:
                break
            watch.wait(0.02)
        assert (store.statistics().records, store.statistics().unfilled_facts) == (1, 0)
        assert journal_entries(path) == 0


def test_a_query_finds_what_is_in_the_journal_only(path: Path) -> None:
    with closing(SqliteStore.open(path)) as store:
        for number in range(3000):
            store.append([accepted(number), ended(number)])
        assert store.count() == 3000
        assert journal_entries(path) == 0
        assert store.statistics().unfilled_facts == 0


def test_the_journal_of_a_former_life_is_copied(path: Path) -> None:
    store = SqliteStore.open(path)
    store.append([ClientSeen(ClientId(7), b"secret", 1.0), BlobKept(OPTIONS.function, b"def")])
    for number in range(5000):
        store.append([accepted(number)])
    store.append([ended(number) for number in range(4990)])
    store.close()
    assert journal_entries(path) > 0
    with closing(SqliteStore.open(path)) as again:
        assert journal_entries(path) == 0
        statistics = again.statistics()
        assert (statistics.records, statistics.unfinished) == (5000, 10)
        assert list(again.unfinished()) == [accepted(number) for number in range(4990, 5000)]
        assert again.clients() == [ClientSeen(ClientId(7), b"secret", 1.0)]
        assert list(again.blobs()) == [BlobKept(OPTIONS.function, b"def")]


def test_totals_outlive_the_process(path: Path) -> None:
    store = SqliteStore.open(path)
    store.append([accepted(1), ended(1), accepted(2)])
    assert store.count() == 2
    before = store.statistics()
    store.close()
    with closing(SqliteStore.open(path)) as again:
        after = again.statistics()
    assert (after.records, after.unfinished, after.payload_bytes) == (2, 1, before.payload_bytes)


def test_questions_are_answered_page_by_page(path: Path) -> None:
    """Large rows too: what is in memory at a time is bounded by bytes and not by rows."""
    with closing(SqliteStore.open(path)) as store:
        for number in range(100):
            assert store.append([accepted(number), ended(number, b"x" * 100_000)])
        rows = store.search([], with_payloads=True)
        assert next(rows).number == 0
        assert store.append([accepted(200)])
        assert store.count() == 101, "no lock is held while the caller thinks"
        assert [row.number for row in rows] == [*range(1, 100), 200]
        found = store.find(map(task, range(100)))
        assert [len(row.payload or b"") for row in found] == [100_000] * 100


def test_what_is_too_old_goes_from_an_idle_file(path: Path) -> None:
    clock = [100.0]
    options = {"record_age_s": 10.0, "now": lambda: clock[0]}
    result = TaskResult(task(1), Status.OK, b"result", completed=100.0)
    with closing(SqliteStore.open(path)) as store:
        assert store.append([accepted(1), TaskEnded(result), accepted(2)])
        assert store.count() == 2
    with closing(SqliteStore.open(path, **options)) as store:  # type: ignore[arg-type]
        assert store.count() == 2
        clock[0] = 111.0
        assert store.count() == 1
        assert (store.statistics().records, store.statistics().payload_bytes) == (1, 0)


def test_the_file_does_not_grow_without_bound(path: Path) -> None:
    with closing(SqliteStore.open(path, payload_limit_bytes=1 << 20, record_limit=500)) as store:
        for number in range(2000):
            while not store.append(
                [accepted(number), ended(number, b"x" * 20_000), TaskDelivered(task(number))]
            ):
                assert store.flush(10)
            if number % 100 == 0:
                assert store.count() <= 500
        assert store.count() == 500
        assert store.statistics().payload_bytes <= 1 << 20
        # 40 MB went through.
        assert path.stat().st_size < 12 << 20
        assert path.with_name(f"{path.name}-wal").stat().st_size < 24 << 20


def test_queries_from_many_threads_while_facts_come(path: Path) -> None:
    with closing(SqliteStore.open(path)) as store:
        seen: list[list[int]] = [[] for _ in range(4)]

        def ask(counts: list[int]) -> None:
            for _ in range(20):
                counts.append(store.count())
                assert len(store.tasks(limit=10)) <= 10
                assert len(list(store.unfinished())) <= 2000

        threads = [threading.Thread(target=ask, args=(counts,)) for counts in seen]
        for thread in threads:
            thread.start()
        for number in range(2000):
            store.append([accepted(number)])
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert store.count() == 2000
        for counts in seen:
            assert len(counts) == 20
            assert counts == sorted(counts)


# ---------------------------------------------------------------- a killed controller

_APPEND_UNTIL_KILLED = """
import sys
from pathlib import Path
from enginery.controller.store import writer
from enginery.controller.store.sqlite import SqliteStore
from enginery.controller.store.tables import Tables
from enginery.ids import BlobId, ClientId, EngineId, make_task_id
from enginery.protocol.history import BlobKept, TaskAccepted, TaskEnded
from enginery.protocol.messages import Kind, Status, TaskOptions, TaskResult

store = SqliteStore.open(Path(sys.argv[1]))
options = TaskOptions(Kind.CALL, BlobId(b"f" * 16), "square")
store.append([BlobKept(options.function, b"def")])
number = 0

def report(last):
    # One write, so that a line is whole or not there.
    sys.stdout.write(f"{last}\\n")
    sys.stdout.flush()

while True:
    facts = []
    for number in range(number, number + 100):
        task = make_task_id(ClientId(7), number)
        facts.append(TaskAccepted(task, 1000.0 + number, options, b"call %d" % number))
        if number % 2:
            facts.append(TaskEnded(TaskResult(task, Status.OK, b"result", engine=EngineId(0))))
    if store.append(facts, on_committed=lambda last=number: report(last)):
        number += 1
    else:
        store.flush(10)
        number -= 99
"""


def test_what_was_reported_as_committed_outlives_sigkill(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _APPEND_UNTIL_KILLED, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                if int(line) >= 60_000:  # beyond where the tables are filled while facts come in
                    break
        finally:
            child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().splitlines()
        assert child.wait(10) == -signal.SIGKILL
    last = int([line, *rest][-1])

    with closing(SqliteStore.open(path)) as store:
        unfinished = list(store.unfinished())
        assert store.count() >= last + 1
        assert store.count() % 100 == 0  # batches are whole
        assert [call.task for call in unfinished] == [task(number) for number in range(0, store.count(), 2)]
        assert unfinished[3] == TaskAccepted(task(6), 1006.0, OPTIONS, b"call 6")
        assert unfinished[-1].payload == b"call %d" % (store.count() - 2)
        assert list(store.blobs()) == [BlobKept(OPTIONS.function, b"def")]
        row = store.task(task(last if last % 2 else last - 1))
        assert row is not None
        assert (row.status, row.payload) == (Status.OK, b"result")


# ---------------------------------------------------------------- a disk that fails


def fill_up(store: SqliteStore, first: int, count: int) -> list[int]:
    committed: list[int] = []
    for number in range(first, first + count):
        assert store.append(
            [accepted(number, b"x" * 1000)],
            on_committed=lambda n=number: committed.append(n),  # type: ignore[misc]
        )
    assert store.flush(10)
    return committed


_FULL_DISK = """
import logging, resource, sys, threading
from pathlib import Path
logging.disable()
sys.path.insert(0, sys.argv[2])
import test_store_sqlite as here
from enginery.controller.store.conditions import Condition
from enginery.protocol.messages import Term
from enginery.controller.store import writer
from enginery.controller.store.sqlite import SqliteStore
from enginery.controller.store.tables import Tables

failures = []
store = SqliteStore.open(Path(sys.argv[1]), on_failure=failures.append)
assert here.fill_up(store, 0, 100) == list(range(100))
assert store.append([here.ended(0), here.BlobKept(here.OPTIONS.function, b"def")])
assert store.count() == 100                                     # these are in the tables
assert here.fill_up(store, 100, 100) == list(range(100, 200))   # these perhaps in the journal only
size = Path(sys.argv[1] + "-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))         # every write beyond is an error

assert here.fill_up(store, 200, 300) == list(range(200, 500))
assert store.append([here.ended(number) for number in range(100, 499)])
assert store.count() == 500, store.count()
assert [call.task for call in store.unfinished()] == [here.task(n) for n in (*range(1, 100), 499)]
assert store.task(here.task(0)).payload == b"result"            # the file can still be read
assert store.task(here.task(1)).call == here.accepted(1, b"x" * 1000)
assert store.task(here.task(498)).payload == b"result"
assert [row.number for row in store.tasks(limit=600)] == list(range(499, -1, -1))
assert [blob.data for blob in store.blobs()] == [b"def"]
found = list(store.find([here.task(n) for n in (498, 0, 1, 999)]))
assert [row.number for row in found] == [0, 1, 498]
assert [row.payload for row in found] == [b"result", None, b"result"]
assert [row.number for row in store.search([], with_payloads=False)] == list(range(500))
ended = Condition(Term("status", "ne", None))
assert [row.number for row in store.search([ended], with_payloads=True)] == [0, *range(100, 499)]
assert store.ended_tasks() == [here.task(n) for n in range(100, 499)]  # of those that can be purged
assert len(failures) == 1
assert store.statistics().failure and store.statistics().records == 500
assert repr(store).endswith(" in memory only>")
store.close()
assert threading.active_count() == 1
print(failures[0])
"""


def test_a_full_disk_is_reported_once_and_the_history_goes_on_in_memory(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _FULL_DISK, str(path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"the history {path} cannot be written (")
    assert done.stdout.endswith(
        "); it goes on in memory and ends with the controller; make room and start the controller again\n"
    )


def test_tables_that_are_broken_are_reported_too(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The error comes while the journal is copied, from the writer itself."""
    failures: list[Exception] = []
    with closing(SqliteStore.open(path, on_failure=failures.append)) as store:
        store.append([accepted(1)])
        assert store.count() == 1
        with closing(sqlite3.connect(path)) as saboteur:
            saboteur.execute("DROP INDEX task_by_payload")
            saboteur.execute("ALTER TABLE task RENAME COLUMN label TO other")
        store.append([accepted(2)])
        assert store.flush(10)
        assert failures == []
        assert store.count() == 1  # the journal could be saved, the tables could not
        store.append([accepted(3), ended(2)])
        assert store.flush(10)
        assert [row.number for row in store.tasks()] == [3, 2]
        assert store.task(task(1)) is None
        row = store.task(task(2))
        assert row is not None
        assert (row.status, row.payload) == (Status.OK, b"result")
    assert [type(failure) for failure in failures] == [HistoryError]
    assert "no column named label" in str(failures[0])
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]


@pytest.mark.parametrize("step", ["add_entry", "fill", "forget_old", "checkpoint"])
def test_a_defect_ends_the_file_and_neither_its_thread_nor_the_history(
    path: Path, step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("a defect")

    failures: list[Exception] = []
    with closing(SqliteStore.open(path, on_failure=failures.append)) as store:
        monkeypatch.setattr(Tables, step, fail)
        monkeypatch.setattr(writer, "_CHECKPOINT_BYTES", 0)
        assert fill_up(store, 0, 10) == list(range(10))
        assert store.count() == 10
        assert fill_up(store, 10, 10) == list(range(10, 20))
        assert store.count() == 20
        assert store.statistics().failure == "a defect"
    assert [type(failure) for failure in failures] == [HistoryError]
    assert "RuntimeError: a defect" in caplog.text


def test_files_that_cannot_be_removed_are_named_and_stay(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Path, *, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    blob = BlobId(b"b" * 16)
    with closing(SqliteStore.open(path)) as store:
        result = TaskResult(task(1), Status.OK, b"result", (blob,), engine=EngineId(0))
        facts = [accepted(1), TaskEnded(result), BuffersKept(task(1), [blob], 6)]
        store.append(facts, buffers=[(blob, [b"buffer"])])
        assert store.count() == 1
        assert store.buffer(blob) == b"buffer"
        store.append([TasksPurged([task(1)])])
        assert store.count() == 0
        assert fill_up(store, 2, 1) == [2]
        assert store.count() == 1
        assert store.statistics().failure == ""
    assert "stays behind: [Errno 30] Read-only file system" in caplog.text
