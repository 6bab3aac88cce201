"""Messages as short lines: what a transcript shows of a record."""

from __future__ import annotations

from collections.abc import Iterable

from enginery.ids import TaskId, task_client, task_number
from enginery.protocol import messages as m
from enginery.testing.deeds import function_blob

FUNCTIONS = {function_blob(name)[0]: name for name in "fgh"}


def task(task_id: TaskId, attempt: int = 1) -> str:
    """`3`, `2:3` for another client than the first, `3.2` for the second attempt."""
    client = "" if task_client(task_id) == 1 else f"{task_client(task_id)}:"
    return f"{client}{task_number(task_id)}" + (f".{attempt}" if attempt > 1 else "")


def tasks(calls: Iterable[tuple[TaskId, int]]) -> str:
    return " ".join(task(*call) for call in calls) or "nothing"


def ranges(numbers: m.Ranges) -> str:
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in numbers if last)


def blobs(names: Iterable[bytes]) -> str:
    return " ".join(FUNCTIONS.get(name, "a buffer") for name in names)  # type: ignore[call-overload]


def describe(record: m.Record) -> str:
    match record:
        case m.ClientHello():
            return f"hello, has received {record.received}"
        case m.EngineHello():
            return f"hello, holds {tasks(record.held)}"
        case m.ControlHello() | m.HostHello():
            return "hello"
        case m.ClientWelcome():
            return f"welcome, accepted {ranges(record.accepted) or 'nothing'}"
        case m.EngineWelcome():
            return f"welcome as engine {record.engine}, stored below {record.stored}"
        case m.ControlWelcome() | m.HostWelcome():
            return "welcome"
        case m.HelloFirst():
            return f"hello first: {record.reason}"
        case m.Submit():
            calls = " ".join(
                str(call.number) + (f" to {','.join(map(str, call.engines))}" if call.engines else "")
                for call in record.calls
            )
            return f"submit {record.options.name}: {calls}"
        case m.PutBlob():
            part = (
                "" if not record.offset and record.size_bytes <= m.FRAME_LIMIT else f" from {record.offset}"
            )
            return f"put {blobs([record.blob])} ({record.size_bytes} bytes){part}"
        case m.Abort():
            return f"abort {tasks((one, 1) for one in record.tasks)}"
        case m.Accepted():
            return f"accepted {ranges(record.ranges)}"
        case m.Received():
            return f"received all below {record.below}"
        case m.Resend():
            return f"send again {' '.join(map(str, record.numbers))} with {blobs(record.blobs)}"
        case m.Finished():
            return "finished: " + ", ".join(map(ending, record.results))
        case m.EnginesChanged():
            news = [f"engine {info.engine} joined" for info in record.joined]
            news += [f"engine {left.engine} left: {left.cause}" for left in record.left]
            return ", ".join(news)
        case m.Run():
            announce = ", announced" if record.options.announce else ""
            return f"run {tasks((call.task, call.attempt) for call in record.calls)}{announce}"
        case m.Started():
            return f"started {task(record.task, record.attempt)}"
        case m.Results():
            results = ", ".join(
                f"{task(result.task, result.attempt)} {result.status.name}" for result in record.results
            )
            return f"results: {results}"
        case m.Stored():
            return f"stored below {record.below}"
        case m.BlobsMissing():
            return f"has no {blobs(record.blobs)} for {task(record.task, record.attempt)}"
        case m.DropBlobs():
            return f"drop {blobs(record.blobs)}"
        case m.TakeBack():
            return f"give back {tasks(record.calls)}"
        case m.EndCalls():
            return f"end {tasks(record.calls)}"
        case m.Cancel():
            within = "" if record.grace_s is None else f" within {record.grace_s:g} s"
            return f"cancel {tasks((one, 1) for one in record.tasks)}{within}"
        case m.KillProcess():
            return f"kill {int(record.key, 16)} if it runs {task(record.running)}"
        case m.LaunchEngines():
            return f"launch engine {' '.join(map(str, record.wanted))}"
        case m.TakenBack():
            return f"gave back {tasks(record.taken)}, kept {tasks(record.kept)}"
        case m.EngineExited():
            started = tasks((one, 1) for one in record.started) if record.proof else "unknown"
            return f"engine {int(record.key, 16)} has ended, {record.cause}; it had started {started}"
    return type(record).__name__.lower()


def ending(result: m.TaskResult) -> str:
    where = f" on {result.engine}" if result.engine >= 0 else ""
    why = f" ({result.detail})" if result.detail else ""
    return f"{task(result.task)} {result.status.name}{where}{why}"
