"""Every wait has an end: each call that may block stands in ARCHITECTURE.md, with what ends it.

The finder goes by names, so it sees what is called like a wait and not what waits. What cannot block is told
apart by how it is called (a time of zero, a flag), or is named below with the reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.architecture.source_tree import SOURCES, Module, read_modules, read_plan

WAITS = frozenset(
    {"accept", "acquire", "communicate", "connect", "flock", "get", "join", "lockf", "pause", "poll", "read"}
    | {"readline", "recv", "recv_fds", "result", "run_until_complete", "select", "sigwait", "sleep", "wait"}
    | {"wait_until", "wait4", "waitpid"}
)
FLAGS = ("LOCK_NB", "LOCK_UN", "WNOHANG", "NOBLOCK", "blocking=False")
"""A call with one of these does not wait."""
CANNOT_BLOCK = {
    "select.poll": "makes a poll object",
    "sqlite3.connect": "opens a file; what it may wait for is a lock, within its busy timeout",
    "Sharing.join": "opens a directory",
    "os.path.join": "makes a path",
    "asyncio.wait": "makes a coroutine",
    "self._lookup.result": "makes a result",
    "self.result": "makes a result",
    "self._process.poll": "looks whether a process has ended",
    "self.wait": "is another method of the same object, which has a row if it blocks",
    "self.dependencies.wait": "notes that a task waits for others",
    "monitor.connect": "joins two sockets of one process",
    "socket.connect": "0MQ connects behind",
    "socket.recv": "is called where one has something: `zmq.NOBLOCK`, or the rest of a message",
    "self._socket.recv": "likewise",
    "ready.recv": "likewise",
}
QUEUES = re.compile(r"(\w+)(?:: [^=\n]+)? = queue\.")
"""What is made a queue of, by its name: `get` of one may block, of a dictionary it does not."""
READS = frozenset({"os.read", "sys.stdin.readline"})
NEVER_BLOCKING = {
    "enginery.transport.channel": {"read": "a waker's pipe does not block"},
    "enginery.host.ready": {"read": "the ready line's pipe does not block"},
    "enginery.host.out_of_memory": {"read": "the kernel's log is opened with O_NONBLOCK"},
    "enginery.host.orders": {"recv_fds": "the sockets of the pair do not block"},
    "enginery.host.processes": {"recv": "the signals' socket does not block"},
    "enginery.transport.lane": {"recv": "the lane's sockets do not block"},
    "enginery.transport.lane_channel": {"connect": "a local socket is connected at once, or is refused"},
    "enginery.transport.lane_listener": {"recv": "likewise", "accept": "likewise"},
    "enginery.transport.memory": {"connect": "joins two queues of one process"},
}
UNUSED_ROOMS = frozenset({"testing"})
"""Fakes in virtual time."""

_ROW = re.compile(r"^\| `([\w/]+)` (`[^|]*`) \|([^|]+)\|([^|]+)\|$", re.MULTILINE)


def blocking_calls(module: Module) -> Iterator[tuple[str, int]]:
    """The functions of a module that may block, as ``Class.method``, each with a line."""

    queues = frozenset(QUEUES.findall(module.text))

    def visit(node: ast.AST, scope: tuple[str, ...]) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            inner = scope
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                inner = (*scope, child.name)
            elif isinstance(child, ast.Call) and may_block(module.name, child, queues):
                yield ".".join(scope), child.lineno
            yield from visit(child, inner)

    yield from visit(module.tree, ())


def may_block(module: str, call: ast.Call, queues: frozenset[str] = frozenset()) -> bool:
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in WAITS:
        return False
    name, text = call.func.attr, ast.unparse(call.func)
    arguments = [ast.unparse(each) for each in (*call.args, *(word.value for word in call.keywords))]
    if text in CANNOT_BLOCK or name in NEVER_BLOCKING.get(module, ()):
        return False
    if any(flag in ast.unparse(call) for flag in FLAGS):
        return False
    if name == "get":
        return ast.unparse(call.func.value).rpartition(".")[2] in queues
    if name in ("read", "readline"):
        return text in READS
    if name == "join":  # of texts and paths: they are told what to join
        return not arguments or any(re.search(r"_S$|timeout|deadline|^[\d.]+$", each) for each in arguments)
    return not (name in ("poll", "result", "wait") and arguments in (["0"], ["0.0"]))


def rows(plan: str) -> dict[tuple[str, str], tuple[str, str]]:
    """By module and function: what is waited for, and what ends that."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for module, functions, what, ends in _ROW.findall(plan):
        for function in re.findall(r"`([^`]+)`", functions):
            found[module, function] = what.strip(), ends.strip()
    return found


def found_in(modules: list[Module]) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for module in modules:
        if module.room not in UNUSED_ROOMS:
            path = module.path.relative_to(SOURCES / "enginery").with_suffix("")
            for function, line in blocking_calls(module):
                found.setdefault((str(path), function), module.where(line))
    return found


def test_each_call_that_may_block_has_a_row() -> None:
    table, found = rows(read_plan()), found_in(read_modules())
    missing = [
        f"{where}: `{key[0]}` `{key[1]}` has no row" for key, where in found.items() if key not in table
    ]
    assert "\n".join(missing) == ""


def test_each_row_has_a_call() -> None:
    table, found = rows(read_plan()), found_in(read_modules())
    assert sorted(table.keys() - found.keys()) == []
    assert all(what and ends for what, ends in table.values())


@pytest.mark.parametrize(
    ("line", "blocks"),
    [
        ("event.wait()", True),
        ("event.wait(None if deadline is None else 1)", True),
        ("future.wait(0)", False),
        ("thread.join()", True),
        ("thread.join(JOIN_S)", True),
        ("', '.join(names)", False),
        ("poll.poll(0)", False),
        ("poll.poll()", True),
        ("select.poll()", False),
        ("fcntl.flock(file, fcntl.LOCK_EX)", True),
        ("fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", False),
        ("os.waitpid(-1, os.WNOHANG)", False),
        ("lock.acquire(blocking=False)", False),
        ("room.acquire()", True),
        ("answer.result()", True),
        ("answer.result(timeout=0)", False),
    ],
)
def test_the_finder(line: str, blocks: bool) -> None:
    (statement,) = ast.parse(line).body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    assert may_block("enginery.client.client", statement.value) is blocks
