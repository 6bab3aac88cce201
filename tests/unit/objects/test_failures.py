"""Exceptions across a connection: the original type, a RemoteError, and the remote traceback."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from enginery.errors import (
    CompositeError,
    EngineError,
    ImpossibleDependency,
    RemoteError,
    TaskTimeout,
    UnmetDependency,
)
from enginery.objects.failures import TEXT_LIMIT_CHARS, mixed_type, pack_failure, unpack_failure


def carry(error: BaseException, **known: Any) -> RemoteError:
    """Raise an exception, send it, and return what the client gets."""
    try:
        raise error
    except BaseException as raised:
        packed = pack_failure(raised, **known)
    return unpack_failure(packed.inline, [bytes(buffer) for buffer in packed.buffers])


class Demanding(Exception):
    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code} because {reason}")
        self.code = code
        self.reason = reason


class Slotted(Exception):
    __slots__ = ("left", "never_set")

    def __init__(self, left: int) -> None:
        self.left = left


class Renamed(Exception):
    def __str__(self) -> str:
        return f"my own text of {self.args}"


class Fussy(Exception):
    def __new__(cls, *args: Any, **kwargs: Any) -> Fussy:
        if "magic" not in kwargs:
            raise TypeError("no magic")
        return super().__new__(cls, *args)

    def __init__(self, *args: Any, magic: str) -> None:
        super().__init__(*args)


def test_it_is_both_types() -> None:
    error = carry(ValueError("bad", 3), engine=2, engine_uuid="abc", method="apply")
    assert isinstance(error, ValueError)
    assert isinstance(error, RemoteError)
    assert (error.ename, error.evalue, error.args) == ("ValueError", "('bad', 3)", ("bad", 3))
    assert error.engine_info == {"engine_id": 2, "engine_uuid": "abc", "method": "apply"}
    assert error.engine == 2
    assert type(error).__name__ == "ValueError"


def test_its_text_begins_with_name_and_message_and_shows_the_remote_traceback() -> None:
    text = str(carry(ValueError("bad")))
    assert text.startswith("ValueError(bad)\nTraceback (most recent call last):\n")
    assert "    raise error\n" in text
    assert text.endswith("\nValueError: bad")
    assert str(carry(ValueError("bad"), engine=0)).startswith("ValueError(bad)\non engine 0:\nTraceback")


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (
            OSError(2, "none", "/a", None, "/b"),
            {"errno": 2, "strerror": "none", "filename": "/a", "filename2": "/b"},
        ),
        (FileNotFoundError(2, "none", "/a"), {"errno": 2, "filename": "/a"}),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
            {"object": b"\xff", "start": 0, "end": 1, "reason": "why"},
        ),
        (UnicodeEncodeError("ascii", "ä", 0, 1, "why"), {"object": "ä", "encoding": "ascii"}),
        (
            SyntaxError("bad", ("f.py", 3, 1, "x =", 3, 2)),
            {"msg": "bad", "lineno": 3, "text": "x =", "end_offset": 2},
        ),
        (ImportError("no", name="n", path="p"), {"name": "n", "path": "p", "msg": "no"}),
        (ModuleNotFoundError("no", name="n"), {"name": "n"}),
        (NameError("no", name="n"), {"name": "n"}),
        (AttributeError("no", name="n", obj=threading.Lock()), {"name": "n"}),
        (KeyError("k"), {"args": ("k",), "evalue": "'k'"}),
        (Demanding(3, reason="so"), {"code": 3, "reason": "so", "args": ("3 because so",)}),
        (Slotted(4), {"left": 4}),
        (Renamed(1), {"args": (1,), "evalue": "my own text of (1,)"}),
        (Fussy("a", magic="yes"), {"args": ("a",)}),
        (asyncio.QueueFull(), {"args": ()}),
        (pickle.PicklingError("p"), {"args": ("p",)}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_fields_survive(error: Exception, fields: dict[str, Any]) -> None:
    back = carry(error)
    assert isinstance(back, type(error))
    assert isinstance(back, RemoteError)
    assert {name: getattr(back, name) for name in fields} == fields
    assert back.ename == type(error).__name__


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(7), StopAsyncIteration()]
)
def test_what_means_something_to_the_interpreter_is_only_a_cause(error: BaseException) -> None:
    back = carry(error)
    assert type(back) is RemoteError
    assert back.ename == type(error).__name__
    assert type(back.__cause__) is type(error)
    assert back.__cause__.args == error.args
    future: Future[None] = Future()
    future.set_exception(back)
    with pytest.raises(RemoteError):
        future.result(timeout=0)


def test_the_value_of_a_stop_iteration_survives() -> None:
    cause = carry(StopIteration(7)).__cause__
    assert isinstance(cause, StopIteration)
    assert cause.value == 7


def test_verdicts_keep_their_class() -> None:
    for verdict in (UnmetDependency("no gpu"), ImpossibleDependency(), TaskTimeout()):
        back = carry(verdict, engine=1)
        assert type(back) is type(verdict)
        assert (back.ename, back.evalue) == (type(verdict).__name__, verdict.evalue)
        assert back.engine == 1


def test_an_error_of_an_engine_that_called_another_one() -> None:
    inner = carry(Demanding(1, reason="x"), engine=5)
    outer = carry(inner, engine=2)
    assert isinstance(outer, Demanding)
    assert type(outer) is type(inner)
    assert (outer.ename, outer.evalue, outer.code, outer.engine) == ("Demanding", "1 because x", 1, 2)
    assert "on engine 5:" in outer.traceback


def test_groups_and_their_members() -> None:
    group = carry(ExceptionGroup("several", [ValueError("a"), Demanding(1, reason="b")]))
    assert isinstance(group, ExceptionGroup)
    assert isinstance(group, RemoteError)
    assert group.message == "several"
    assert [type(e).__name__ for e in group.exceptions] == ["ValueError", "Demanding"]
    seen = []
    try:
        raise group
    except* Demanding as caught:
        seen += caught.exceptions
    except* ValueError:
        pass
    assert [e.code for e in seen] == [1]
    composite = carry(CompositeError("2 of 2 failed", [ValueError("a"), KeyError("b")]), engine=1)
    assert type(composite) is CompositeError
    assert len(composite.elist) == 2


def test_cause_context_and_notes_travel() -> None:
    def fail() -> None:
        try:
            raise KeyError("first")
        except KeyError as first:
            error = ValueError("second")
            error.add_note("a hint")
            raise error from first

    try:
        fail()
    except ValueError as raised:
        packed = pack_failure(raised)
    back = unpack_failure(*packed)
    assert back.__notes__ == ["a hint"]
    assert type(back.__cause__) is KeyError
    assert back.__cause__.args == ("first",)
    assert "direct cause of the following exception" in back.traceback
    assert "a hint" in back.traceback


def test_a_cycle_of_causes_ends() -> None:
    one, other = ValueError("one"), KeyError("other")
    one.__cause__, other.__cause__ = other, one
    back = carry(one)
    assert isinstance(back.__cause__, KeyError)
    assert back.__cause__.__cause__ is None


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Hostile(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_an_exception_that_cannot_be_pickled() -> None:
    back = carry(Demanding(1, reason=threading.Lock()))  # type: ignore[arg-type]
    assert isinstance(back, Demanding)
    assert back.code == 1
    assert not hasattr(back, "reason")
    lock = threading.Lock()
    assert carry(ValueError("a", lock)).args == ("a", repr(lock))


def test_an_exception_that_cannot_be_printed() -> None:
    back = carry(Unprintable("x"))
    assert isinstance(back, Unprintable)
    assert back.evalue == "<no text: its __str__ raised RuntimeError>"


def test_an_exception_that_answers_nothing() -> None:
    packed = pack_failure(Hostile("x"))
    back = unpack_failure(*packed)
    assert isinstance(back, RemoteError)
    assert back.ename == "Hostile"


class NoChildren(type):
    def __new__(mcs, name: str, bases: tuple[type, ...], names: dict[str, Any]) -> Any:
        if any(isinstance(base, NoChildren) for base in bases):
            raise TypeError(f"{name} is final")
        return super().__new__(mcs, name, bases, names)


class Final(Exception, metaclass=NoChildren):
    pass


class Outside(BaseException):
    pass


@pytest.mark.parametrize("error", [Final("x"), Outside("x")])
def test_types_that_cannot_be_mixed_are_the_cause(error: BaseException) -> None:
    back = carry(error)
    assert type(back) is RemoteError
    assert (back.ename, back.evalue) == (type(error).__name__, "x")
    assert type(back.__cause__) is type(error)


def test_recursion() -> None:
    def deeper() -> None:
        deeper()

    try:
        deeper()
    except RecursionError as raised:
        packed = pack_failure(raised)
    back = unpack_failure(*packed)
    assert isinstance(back, RecursionError)
    assert "Previous line repeated" in back.traceback


def test_huge_texts_are_bounded() -> None:
    back = carry(ValueError("x" * 3_000_000))
    assert len(back.evalue) < TEXT_LIMIT_CHARS + 100
    assert len(back.traceback) < TEXT_LIMIT_CHARS + 100
    assert "characters left out" in back.evalue


def test_lone_surrogates_do_not_spread() -> None:
    assert carry(ValueError("\ud800")).evalue == "\\ud800"


def test_arrays_in_attributes() -> None:
    error = ValueError("shape")
    error.array = np.arange(100_000)  # type: ignore[attr-defined]
    packed = pack_failure(error)
    assert len(packed.inline) <= 1 << 16
    back = unpack_failure(*packed)
    assert back.array.tolist() == list(range(100_000))


def test_copies_and_pickles() -> None:
    error = carry(Demanding(3, reason="so"), engine=1)
    for again in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert (again.code, again.engine_info) == (3, error.engine_info)


def test_a_payload_that_is_no_failure() -> None:
    for payload in (b"", b"\x80\x05N.", b"\x01rubbish", pickle.dumps(({}, (1,)))):
        error = unpack_failure(payload)
        assert type(error) is RemoteError
        assert error.ename == "UnreadableFailure"


def test_the_mixed_type_behaves_like_the_original() -> None:
    mixed = mixed_type(Demanding)
    assert mixed is mixed_type(Demanding)
    assert mixed is not None
    made = mixed(4, reason="r")  # type: ignore[call-arg, arg-type]
    assert made.code == 4  # type: ignore[attr-defined]
    assert mixed_type(EngineError) is EngineError
    assert mixed_type(SystemExit) is None


def test_frames_of_the_machinery_are_left_out() -> None:
    machinery: dict[str, Any] = {"__name__": "enginery.engine.runner"}
    exec("def run(f):\n    f()", machinery)

    def users() -> None:
        raise ValueError("mine")

    try:
        machinery["run"](users)
    except ValueError as raised:
        frames = raised.__traceback__
        assert frames is not None
        raised.__traceback__ = frames.tb_next  # this test's own frame
        text = unpack_failure(*pack_failure(raised)).traceback
    assert "in users" in text
    assert "in run" not in text


@pytest.mark.parametrize(
    "cls", [MemoryError, RecursionError, OSError, UnicodeDecodeError, KeyError, ImportError]
)
def test_built_in_types_arrive_as_themselves(cls: type[Exception]) -> None:
    args = ("utf-8", b"x", 0, 1, "no") if cls is UnicodeDecodeError else ("no room",)
    error = carry(cls(*args))
    assert isinstance(error, cls)
    assert isinstance(error, RemoteError)
    assert error.args == args
    assert error.ename == cls.__name__
    assert error.__cause__ is None


def test_unmet_dependencies_keep_their_class() -> None:
    error = carry(UnmetDependency("no such module here"), engine=2)
    assert type(error) is UnmetDependency
    assert (error.evalue, error.engine) == ("no such module here", 2)
