"""Every error's text, its built-in class, and that it survives pickle and copy."""

from __future__ import annotations

import concurrent.futures
import copy
import io
import pickle
from typing import Any

import pytest

from enginery import errors
from enginery.errors import (
    ClientClosed,
    ClusterAlreadyRunning,
    ClusterNotFound,
    ClusterNotResponding,
    CompositeError,
    ConnectionFileError,
    DependencyTimeout,
    EngineError,
    EngineLost,
    EngineryError,
    ForkedClientError,
    ImpossibleDependency,
    InvalidDependency,
    LaunchError,
    NoEnginesRegistered,
    ReentrantUseError,
    RemoteError,
    TaskAborted,
    TaskCancelled,
    TaskTimeout,
    TimeLimitExceeded,
    TooLarge,
    UnmetDependency,
)


def remote(
    engine: int, ename: str = "ValueError", evalue: str = "bad", traceback: str = "Traceback\n  f"
) -> RemoteError:
    return RemoteError(ename, evalue, traceback, {"engine_id": engine})


TEXTS: list[tuple[EngineryError, str]] = [
    (ClusterNotFound(), "no cluster is running; start one with:  enginery start -n 4"),
    (ClusterNotFound(running=["a"]), "no cluster is running; start one with:  enginery start -n 4"),
    (ClusterNotFound(running=["a", "b"]), "2 clusters are running; name one of them: 'a', 'b'"),
    (
        ClusterNotFound("x", running=["a"]),
        "no cluster named 'x' is running (running: 'a'); start it with:  enginery start -n 4 --name x",
    ),
    (ClusterNotFound(path="/p"), "there is no connection file /p; list what runs with:  enginery list"),
    (
        ClusterAlreadyRunning("x"),
        "a cluster named 'x' is already running; use it with Client('x') or stop it with:  enginery stop x",
    ),
    (
        ClusterNotResponding("x", timeout_s=10, address="tcp://h:1"),
        "the cluster 'x' did not answer within 10 s at tcp://h:1; look with:  enginery status x",
    ),
    (
        ClusterNotResponding(timeout_s=0.5),
        "the cluster did not answer within 0.5 s; look with:  enginery status",
    ),
    (ConnectionFileError("/p", "can be read by others"), "the connection file /p can be read by others"),
    (ClientClosed(), "this client is closed; make a new one with Client()"),
    (
        ReentrantUseError(),
        (
            "a finalizer or signal handler has called the client in the middle of its own work, in the "
            "thread that does it; let it set a flag, or put the call into a queue for another thread"
        ),
    ),
    (
        ForkedClientError(1, 2),
        (
            "this client belongs to process 1 and cannot be used in its forked child 2; "
            "make a new one there with Client()"
        ),
    ),
    (
        LaunchError("engine 3", "exited with code 1", output="line\nlast\n"),
        "engine 3 could not be started: exited with code 1\nIts last output:\n    line\n    last",
    ),
    (LaunchError(), "the cluster could not be started"),
    (
        NoEnginesRegistered(),
        (
            "no engines are registered; wait for them with wait_for_engines(n) or add some with:  "
            "enginery engine -n 4"
        ),
    ),
    (
        TooLarge("argument 0", size_bytes=3 << 30, limit_bytes=100 << 20),
        "argument 0 has 3.0 GiB; the limit is 100.0 MiB",
    ),
    (TooLarge(size_bytes=11, limit_bytes=10), "the message has 11 bytes; the limit is 10 bytes"),
    (remote(3), "ValueError(bad)\non engine 3:\nTraceback\n  f"),
    (RemoteError("KeyError", "'k'"), "KeyError('k')"),
    (
        EngineError(engine=3, cause="killed by SIGKILL", task="0000000a-17"),
        "engine 3 died: killed by SIGKILL; task 0000000a-17 was not finished",
    ),
    (
        EngineError(engine=3, host="node1", last_output="oops\n"),
        "engine 3 on node1 died\nIts last output:\n    oops",
    ),
    (EngineError("all engines of the set died"), "all engines of the set died"),
    (EngineError(), "an engine died"),
    (EngineLost(engine=1), "engine 1 was lost without proof that it ended"),
    (TaskAborted(), "the task was aborted before it started"),
    (TaskCancelled(), "the task was cancelled"),
    (TaskTimeout("too late"), "too late"),
    (TimeLimitExceeded(limit_s=2.5), "the task ran longer than its time_limit of 2.5 s"),
    (UnmetDependency("no gpu here"), "no gpu here"),
    (ImpossibleDependency(), "the task's dependencies can never be met"),
    (InvalidDependency(), "the task depends on a task that is not known"),
    (DependencyTimeout(), "the task's dependencies were not met within its timeout"),
    (
        CompositeError("2 of 3 calls failed", [remote(0), remote(1)]),
        "2 of 3 calls failed\n  engines 0, 1: ValueError(bad)",
    ),
]


@pytest.mark.parametrize(("error", "text"), TEXTS, ids=lambda value: type(value).__name__)
def test_texts(error: EngineryError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(("error", "text"), TEXTS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_pickle_and_copy_keep_everything(error: EngineryError, text: str, again: Any) -> None:
    error.add_note("seen")
    other = again(error)
    assert type(other) is type(error)
    assert str(other) == text
    assert repr(other) == repr(error)
    assert other.__notes__ == error.__notes__
    assert other.args == error.args or isinstance(error, CompositeError)


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (ClusterNotFound, (EngineryError, OSError)),
        (ClusterNotResponding, (EngineryError, TimeoutError)),
        (ConnectionFileError, (EngineryError, OSError)),
        (ClientClosed, (EngineryError, RuntimeError)),
        (ForkedClientError, (ClientClosed,)),
        (TooLarge, (EngineryError, ValueError)),
        (EngineLost, (EngineError,)),
        (TaskCancelled, (RemoteError, concurrent.futures.CancelledError)),
        (TimeLimitExceeded, (TaskTimeout,)),
        (ImpossibleDependency, (UnmetDependency,)),
        (InvalidDependency, (ImpossibleDependency,)),
        (DependencyTimeout, (ImpossibleDependency, TaskTimeout)),
        (CompositeError, (RemoteError, ExceptionGroup)),
    ],
)
def test_tree(error: type, bases: tuple[type, ...]) -> None:
    assert all(issubclass(error, base) for base in bases)


@pytest.mark.parametrize(
    "verdict",
    [
        *(EngineError, EngineLost, TaskAborted, TaskCancelled, TaskTimeout, TimeLimitExceeded),
        *(UnmetDependency, ImpossibleDependency, InvalidDependency),
    ],
)
def test_verdicts_are_remote_errors_named_after_their_class(verdict: type[RemoteError]) -> None:
    error = verdict("a sentence")
    assert isinstance(error, RemoteError)
    assert (error.ename, error.evalue, error.traceback) == (verdict.__name__, "a sentence", "")
    assert verdict().evalue


def test_a_dependency_timeout_has_the_name_that_old_code_looks_for() -> None:
    assert DependencyTimeout().ename == "TaskTimeout"


def test_old_names() -> None:
    assert errors.AbortedTask is TaskAborted
    assert errors.KernelError is errors.IPythonError is EngineryError


def test_a_remote_error_prints_its_traceback() -> None:
    out = io.StringIO()
    remote(2).print_traceback(file=out)
    assert out.getvalue() == "on engine 2:\nTraceback\n  f\n"
    assert remote(2)._render_traceback_() == ["on engine 2:", "Traceback", "  f"]


def test_equal_tracebacks_are_shown_once() -> None:
    several = [remote(i) for i in (0, 1, 2, 5, 5)] + [remote(3, "KeyError", "'k'", "Traceback\n  g")]
    group = CompositeError("6 of 6 calls failed", several)
    assert "\n".join(group.render_traceback()) == (
        "6 of 6 calls failed\n"
        "\n"
        "engines 0-2, 5 (5 times): ValueError(bad)\nTraceback\n  f\n"
        "\n"
        "engine 3: KeyError('k')\nTraceback\n  g"
    )
    out = io.StringIO()
    group.print_traceback(5, file=out)
    assert out.getvalue() == "engine 3: KeyError('k')\nTraceback\n  g\n"


def test_only_some_of_many_different_tracebacks_are_shown() -> None:
    group = CompositeError("many", [remote(i, evalue=str(i)) for i in range(10)])
    text = "\n".join(group.render_traceback())
    assert text.count("Traceback") == CompositeError.tb_limit
    assert text.endswith("… and 6 more; see print_traceback(i) and elist")
    assert str(group).endswith("  … and 6 more")


def test_a_group_can_be_taken_apart() -> None:
    group = CompositeError("2 failed", [remote(0), KeyError("k")])
    assert group.elist == [
        ("ValueError", "bad", "Traceback\n  f", {"engine_id": 0}),
        ("KeyError", "'k'", "", {}),
    ]
    with pytest.raises(RemoteError) as caught:
        group.raise_exception()
    assert caught.value is group.exceptions[0]
    with pytest.raises(IndexError, match="there is no error 7: this call has 2"):
        group.raise_exception(7)
    matched, rest = group.split(KeyError)
    assert isinstance(matched, CompositeError)
    assert isinstance(rest, CompositeError)
    assert (len(matched.exceptions), rest.elist[0][0]) == (1, "ValueError")


def test_except_star_works() -> None:
    seen: list[str] = []
    try:
        raise CompositeError("2 failed", [remote(0), KeyError("k")])
    except* KeyError as group:
        seen += [repr(error) for error in group.exceptions]
    except* RemoteError as group:
        seen += [str(error.engine) for error in group.exceptions if isinstance(error, RemoteError)]
    assert seen == ["KeyError('k')", "0"]


# ---------------------------------------------------------------- old names


def test_errors_whose_tracebacks_were_shown_count_only() -> None:
    one = errors.RemoteError("ValueError", "bad")
    assert str(errors.AlreadyDisplayedError(one)) == "1 error"
    both = errors.AlreadyDisplayedError(errors.CompositeError("two", [one, one]))
    assert (str(both), both.ename, both.render_traceback()) == ("2 errors", "CompositeError", ["2 errors"])
    assert isinstance(both.original_error, errors.CompositeError)


def test_handlers_written_for_ipyparallel_catch() -> None:
    assert errors.TimeoutError is TimeoutError
    assert issubclass(errors.ClusterNotFound, FileNotFoundError)
    assert issubclass(errors.ClusterAlreadyRunning, RuntimeError)
    assert errors.LauncherError is errors.LaunchError
    assert errors.NotRunning is errors.ClusterNotFound
    assert errors.ProcessStateError is errors.ClusterAlreadyRunning
    assert errors.UnknownStatus is errors.ClusterNotResponding
