"""Every error that users meet, in one file.

Errors keep fields and derive their text from them: what happened, to what, what to do next. Three families:

* what is wrong here: the client, the cluster, the connection file (`EngineryError` and a built-in class);
* what user code raised on an engine: `RemoteError`, in most cases mixed with the original class by
  `enginery.objects.failures`, so that ``except ValueError`` works;
* verdicts: what the system says about a task (`EngineError`, `TaskAborted`, …). They are RemoteErrors too, so
  ``except RemoteError`` catches everything that can come out of a result.

All of them can be pickled and copied, whatever their constructors ask for.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any, ClassVar, Self, TextIO

_GIB = 1 << 30
_MIB = 1 << 20


class EngineryError(Exception):
    """Catch whatever this package raises by itself, or for somebody else's code on an engine."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    # Never `cls(*args)`: constructors may demand keywords, and the fields are already in the state.
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


# ---------------------------------------------------------------- clusters and connections


class ClusterNotFound(EngineryError, FileNotFoundError):
    """Say that there is no such cluster, or that one of several must be named."""

    def __init__(self, name: str = "", *, running: Iterable[str] = (), path: str = "") -> None:
        super().__init__(name)
        self.name = name
        self.running = tuple(running)
        self.path = path

    def __str__(self) -> str:
        if self.path:
            return f"there is no connection file {self.path}; list what runs with:  enginery list"
        others = ", ".join(map(repr, self.running))
        if self.name:
            text = f"no cluster named {self.name!r} is running"
            if others:
                text += f" (running: {others})"
            return f"{text}; start it with:  enginery start -n 4 --name {self.name}"
        if len(self.running) > 1:
            return f"{len(self.running)} clusters are running; name one of them: {others}"
        return "no cluster is running; start one with:  enginery start -n 4"


class ClusterAlreadyRunning(EngineryError, RuntimeError):
    """Refuse to start a second cluster of the same name."""

    def __init__(self, name: str = "default") -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f"a cluster named {self.name!r} is already running; use it with Client({self.name!r}) or stop it "
            f"with:  enginery stop {self.name}"
        )


class ClusterNotResponding(EngineryError, builtins.TimeoutError):
    """Say that the controller did not answer in time."""

    def __init__(self, name: str = "", *, timeout_s: float = 0.0, address: str = "") -> None:
        super().__init__(name)
        self.name = name
        self.timeout_s = timeout_s
        self.address = address

    def __str__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        where = f" at {self.address}" if self.address else ""
        command = f"enginery status {self.name}".rstrip()
        return f"the cluster{name} did not answer within {self.timeout_s:g} s{where}; look with:  {command}"


class ConnectionFileError(EngineryError, OSError, ValueError):
    """Say what is wrong with a connection file: stale, unreadable, … `reason` is a verb phrase."""

    def __init__(self, path: str = "", reason: str = "cannot be used") -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"the connection file {self.path} {self.reason}"


class HistoryError(EngineryError, OSError):
    """Say that the history cannot be read or written, and what to do about it."""

    def __init__(self, path: str, problem: str, advice: str) -> None:
        super().__init__(path, problem, advice)
        self.path = path
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        return f"the history {self.path} {self.problem}; {self.advice}"


class ClientClosed(EngineryError, RuntimeError):
    """Refuse to use a client after its end, and say what ended it."""

    def __init__(self, reason: str = "this client is closed") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}; make a new one with Client()"


class ReentrantUseError(EngineryError, RuntimeError):
    """Refuse a call of a finalizer or signal handler that has interrupted the client at its own work.

    Waiting for that work would be waiting for ever: it is done by this very thread.
    """

    def __str__(self) -> str:
        return (
            "a finalizer or signal handler has called the client in the middle of its own work, in the "
            "thread that does it; let it set a flag, or put the call into a queue for another thread"
        )


class ForkedClientError(ClientClosed):
    """Refuse to use a client in a forked child: the connection belongs to the parent."""

    def __init__(self, made_in: int = 0, used_in: int = 0) -> None:
        super().__init__("this client belongs to another process")
        self.args = (made_in, used_in)
        self.made_in = made_in
        self.used_in = used_in

    def __str__(self) -> str:
        return (
            f"this client belongs to process {self.made_in} and cannot be used in its forked child "
            f"{self.used_in}; make a new one there with Client()"
        )


class LaunchError(EngineryError):
    """Say that processes of a cluster could not be started. `output` is the last they wrote."""

    def __init__(self, what: str = "the cluster", reason: str = "", *, output: str = "") -> None:
        super().__init__(what, reason)
        self.what = what
        self.reason = reason
        self.output = output

    def __str__(self) -> str:
        text = f"{self.what} could not be started"
        if self.reason:
            text += f": {self.reason}"
        if self.output:
            text += f"\nIts last output:\n{_indent(self.output.rstrip())}"
        return text


class NoEnginesRegistered(EngineryError):
    """Say that a view was asked for while the cluster has no engine."""

    def __str__(self) -> str:
        return (
            "no engines are registered; wait for them with wait_for_engines(n) or add some with:  "
            "enginery engine -n 4"
        )


class NoSuchEngine(EngineryError, IndexError, KeyError):
    """Say that an engine was named which is not there."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # not that of KeyError, which shows a key


class QueryRefused(EngineryError, ValueError):
    """Say why the controller does not answer a question about its history."""


class PurgeRefused(EngineryError, IndexError, KeyError, RuntimeError):
    """Say why tasks cannot be forgotten: one has not ended, or is not known."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class TooLarge(EngineryError, ValueError):
    """Refuse, before anything is sent, what is above a limit."""

    def __init__(self, what: str = "the message", *, size_bytes: int = 0, limit_bytes: int = 0) -> None:
        super().__init__(what)
        self.what = what
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"{self.what} has {_size(self.size_bytes)}; the limit is {_size(self.limit_bytes)}"


# ---------------------------------------------------------------- what came from an engine


class RemoteError(EngineryError):
    """Stand for an exception that ended a task on an engine.

    `ename` is the name of its class, `evalue` its text, `traceback` the remote traceback as text and
    `engine_info` a dictionary with ``engine_id``, ``engine_uuid`` and ``method``, as far as they are known.
    Whether it also is an instance of the original class depends on that class; `except` with either works.
    """

    # Class attributes and no demanding constructor: classes mixed from this one and a user's are made with
    # the user's `__new__` alone.
    ename: str = ""
    evalue: str = ""
    traceback: str = ""
    engine_info: Mapping[str, Any] = {}

    def __init__(
        self,
        ename: str = "",
        evalue: str = "",
        traceback: str = "",
        engine_info: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(ename, evalue)
        self.ename = ename
        self.evalue = evalue
        self.traceback = traceback
        self.engine_info = dict(engine_info or {})

    @property
    def engine(self) -> int | None:
        """The engine's id, or None if nobody knows it."""
        engine = self.engine_info.get("engine_id")
        return engine if isinstance(engine, int) else None

    def __str__(self) -> str:
        return "\n".join([self._headline(), *self.render_traceback()])

    def __repr__(self) -> str:
        where = "" if self.engine is None else f" on engine {self.engine}"
        return f"<RemoteError: {self._headline()}{where}>"

    def _headline(self) -> str:
        return f"{self.ename}({self.evalue})"

    def render_traceback(self) -> list[str]:
        """Return the lines of the remote traceback, after one that names the engine; none without one."""
        if not self.traceback:
            return []
        where = [] if self.engine is None else [f"on engine {self.engine}:"]
        return where + self.traceback.rstrip("\n").split("\n")

    def print_traceback(self, excid: int | None = None, *, file: TextIO | None = None) -> None:
        """Write the remote traceback to `file`, standard output by default."""
        (file or sys.stdout).write("\n".join(self.render_traceback() or [self._headline()]) + "\n")

    def _render_traceback_(self, *_ignored: Any) -> list[str]:
        # IPython asks for this instead of the local traceback, which only shows the inside of `get`.
        return self.render_traceback() or [f"{type(self).__name__}: {self}"]


class CompositeError(RemoteError, ExceptionGroup[Exception]):
    """Carry the errors of several tasks of one call.

    An `ExceptionGroup`, so ``except*`` works; `exceptions` holds one error per failed task. Equal tracebacks
    are shown once, with the list of engines.

    >>> try:
    ...     raise CompositeError("2 of 2 failed", [ValueError("a"), KeyError("b")])
    ... except* ValueError as group:
    ...     group.exceptions
    (ValueError('a'),)
    """

    tb_limit: ClassVar[int] = 4
    """Different tracebacks that `print_traceback()` shows at most."""

    ename = "CompositeError"

    def __new__(cls, message: str, exceptions: Sequence[Exception]) -> Self:
        return super().__new__(cls, message, exceptions)

    def __init__(self, message: str, exceptions: Sequence[Exception]) -> None:
        ExceptionGroup.__init__(self, message, exceptions)
        self.evalue = message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), (self.message, list(self.exceptions)), self.__dict__)

    def derive(self, excs: Sequence[Exception]) -> CompositeError:  # type: ignore[override]
        return CompositeError(self.message, excs)

    @property
    def elist(self) -> list[tuple[str, str, str, Mapping[str, Any]]]:
        """The errors as ``(ename, evalue, traceback, engine_info)``."""
        return [_fields(error) for error in self.exceptions]

    def raise_exception(self, excid: int = 0) -> None:
        """Raise one of the errors by its position; raises IndexError if there is no such one."""
        try:
            error = self.exceptions[excid]
        except IndexError:
            count = len(self.exceptions)
            raise IndexError(f"there is no error {excid}: this call has {count}, numbered from 0") from None
        raise error

    def render_traceback(self) -> list[str]:
        """Return the lines of all different tracebacks, `tb_limit` at most, each after its engines."""
        groups: dict[tuple[str, str, str], list[Exception]] = {}
        for error in self.exceptions:
            groups.setdefault(_fields(error)[:3], []).append(error)
        lines = [self.message]
        for (ename, evalue, traceback), members in list(groups.items())[: self.tb_limit]:
            lines += ["", f"{_engines(members)}: {ename}({evalue})"]
            lines += traceback.rstrip("\n").split("\n") if traceback else []
        if len(groups) > self.tb_limit:
            lines += ["", f"… and {len(groups) - self.tb_limit} more; see print_traceback(i) and elist"]
        return lines

    def print_traceback(self, excid: int | None = None, *, file: TextIO | None = None) -> None:
        """Write all different tracebacks, or that of one error, to `file`, standard output by default."""
        lines = self.render_traceback()
        if excid is not None:
            ename, evalue, traceback, _ = self.elist[excid]
            lines = [f"{_engines([self.exceptions[excid]])}: {ename}({evalue})", traceback.rstrip("\n")]
        (file or sys.stdout).write("\n".join(lines) + "\n")

    def __str__(self) -> str:
        # One line per different error only: whoever prints a group prints its members as well.
        groups: dict[str, list[Exception]] = {}
        for error in self.exceptions:
            ename, evalue, _, _ = _fields(error)
            groups.setdefault(f"{ename}({evalue})", []).append(error)
        lines = [f"  {_engines(members)}: {text}" for text, members in list(groups.items())[: self.tb_limit]]
        if len(groups) > self.tb_limit:
            lines.append(f"  … and {len(groups) - self.tb_limit} more")
        return "\n".join([self.message, *lines])

    def __repr__(self) -> str:
        return f"<CompositeError: {self.message}, {len(self.exceptions)} errors>"


def _fields(error: Exception) -> tuple[str, str, str, Mapping[str, Any]]:
    if isinstance(error, RemoteError):
        return error.ename, error.evalue, error.traceback, error.engine_info
    return type(error).__name__, str(error), "", {}


def _engines(errors: Sequence[Exception]) -> str:
    known = {error.engine for error in errors if isinstance(error, RemoteError)} - {None}
    engines = sorted(engine for engine in known if engine is not None)
    times = f" ({len(errors)} times)" if len(errors) > max(1, len(engines)) else ""
    if not engines:
        return f"engine unknown{times}"
    return f"engine{'s' * (len(engines) > 1)} {spans(engines)}{times}"


def spans(numbers: Sequence[int]) -> str:
    """Return sorted numbers as text, runs of three or more abbreviated: ``0-3, 7``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 2 else ", ".join(map(str, p)) for p in parts)


# ---------------------------------------------------------------- verdicts


class Verdict(RemoteError):
    """Say something about a task: base of the verdicts. The text is a sentence, `ename` the class name."""

    _ename: ClassVar[str] = ""
    _default: ClassVar[str] = "the task did not run"

    def __init__(
        self, evalue: str = "", *, traceback: str = "", engine_info: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(type(self)._ename or type(self).__name__, evalue, traceback, engine_info)
        self.args = (evalue,) if evalue else ()
        self.evalue = evalue or self._default

    def _headline(self) -> str:
        return self.evalue

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.evalue}>"


class EngineError(Verdict):
    """Say that an engine ended while it had work. `cause` is what ended it, `task` the id of the task."""

    cause: str = ""
    task: str = ""
    last_output: str = ""

    def __init__(
        self,
        evalue: str = "",
        *,
        engine: int | None = None,
        cause: str = "",
        task: str = "",
        host: str = "",
        last_output: str = "",
        engine_info: Mapping[str, Any] | None = None,
    ) -> None:
        info = dict(engine_info or {})
        if engine is not None:
            info.setdefault("engine_id", engine)
        super().__init__(evalue, engine_info=info)
        self.cause = cause
        self.task = task
        self.host = host
        self.last_output = last_output
        if not evalue:
            self.evalue = self._sentence()

    def _sentence(self) -> str:
        subject = "an engine" if self.engine is None else f"engine {self.engine}"
        where = f" on {self.host}" if self.host else ""
        cause = f": {self.cause}" if self.cause else ""
        task = f"; task {self.task} was not finished" if self.task else ""
        text = f"{subject}{where} {self._what_happened}{cause}{task}"
        if self.last_output:
            text += f"\nIts last output:\n{_indent(self.last_output.rstrip())}"
        return text

    _what_happened: ClassVar[str] = "died"


class NestedTooDeep(EngineryError):
    """Say that in one engine too many tasks wait, each inside the one before. `limit` is how many may."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"{limit} tasks wait in this engine already, each for tasks of its own, inside the one before; "
            "use more engines, cut the work into fewer levels, or have tasks return what is left to do"
        )


class EngineLost(EngineError):
    """Say that an engine vanished without proof of death: its task may have run, or still run."""

    _what_happened = "was lost without proof that it ended"


class TaskAborted(Verdict):
    """Say that a task was taken out of the queue before it started."""

    _default = "the task was aborted before it started"


class TaskCancelled(Verdict, CancelledError):
    """Say that a task was cancelled, waiting or running."""

    _default = "the task was cancelled"


class TaskTimeout(Verdict):
    """Say that a task was given up because a time had passed."""

    _default = "the task ran out of time"


class TimeLimitExceeded(TaskTimeout):
    """Say that a task ran longer than its `time_limit`, in seconds."""

    limit_s: float = 0.0

    def __init__(
        self, evalue: str = "", *, limit_s: float = 0.0, engine_info: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(
            evalue or f"the task ran longer than its time_limit of {limit_s:g} s", engine_info=engine_info
        )
        self.limit_s = limit_s


class UnmetDependency(Verdict):
    """Say that an engine does not meet a condition. Raise it in a `@depend` function to refuse the engine."""

    _default = "this engine does not meet the task's dependency"


class ImpossibleDependency(UnmetDependency):
    """Say that a task can never run: no engine, and no end of another task, will meet its conditions."""

    _default = "the task's dependencies can never be met"


class InvalidDependency(ImpossibleDependency):
    """Say that a task depends on a task that nobody knows."""

    _default = "the task depends on a task that is not known"


class DependencyTimeout(ImpossibleDependency, TaskTimeout):
    """Say that a task's dependencies were not met within its `timeout`."""

    _ename = "TaskTimeout"
    _default = "the task's dependencies were not met within its timeout"


class UnknownTask(Verdict, KeyError):
    """Say that nobody knows a task of this id, or that nobody does any more."""

    _default = "no task of this id is known"


class ResultDropped(Verdict):
    """Say that a task has ended, and that its value is no longer kept."""

    _default = "the task has ended, and its value is no longer kept"


# ---------------------------------------------------------------- old names


class AlreadyDisplayedError(RemoteError):
    """Stand for errors whose tracebacks have been shown already; `original_error` has them."""

    def __init__(self, original_error: BaseException) -> None:
        ename = getattr(original_error, "ename", "") or type(original_error).__name__
        super().__init__(ename, getattr(original_error, "evalue", "") or str(original_error))
        self.args = (original_error,)
        self.original_error = original_error

    def __str__(self) -> str:
        errors = getattr(self.original_error, "exceptions", (self.original_error,))
        return f"{len(errors)} error{'s' * (len(errors) != 1)}"

    def render_traceback(self) -> list[str]:
        """Return one line: the rest was shown."""
        return [str(self)]


class TaskRejectError(EngineryError):
    """A name of ipyparallel. Nothing raises it, there or here."""


AbortedTask = TaskAborted
KernelError = EngineryError
IPythonError = EngineryError
LauncherError = LaunchError
ProcessStateError = ClusterAlreadyRunning
NotRunning = ClusterNotFound
UnknownStatus = ClusterNotResponding
TimeoutError = builtins.TimeoutError  # noqa: A001


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def _size(size_bytes: int) -> str:
    if size_bytes >= _GIB:
        return f"{size_bytes / _GIB:.1f} GiB"
    if size_bytes >= _MIB:
        return f"{size_bytes / _MIB:.1f} MiB"
    return f"{size_bytes} bytes"
