"""Exceptions, from an engine to a client.

A client should see the original type (``except ValueError``), a `RemoteError`, and the remote traceback with
source lines. Plain pickle does not do it: it calls ``__init__`` with `args`, which fails for every class
whose constructor wants something else, and loses what is in C fields (`OSError.filename`, the Unicode and
syntax errors' texts) and in slots.

So an exception travels as parts: its class (by reference or by value), `args`, ``__dict__``, all its fields,
and texts taken on the engine. It is put together again without any code of the user's: with the `__new__` of
the built-in class below, in a class made of `RemoteError` and the original one. Whatever part does not make
it, the others do; in the end there is a `RemoteError` that has the name and the texts.

Exceptions that mean something to the interpreter itself (`SystemExit`, `KeyboardInterrupt`, `GeneratorExit`,
`StopIteration`) must not be raised out of a result: they are the `__cause__` of a plain RemoteError.
"""

from __future__ import annotations

import io
import pickle
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import GetSetDescriptorType, MemberDescriptorType, TracebackType
from typing import Any, NamedTuple

from enginery.errors import RemoteError
from enginery.objects.arrival import Arrival
from enginery.objects.packing import Buffer, Packed, pack, unpack
from enginery.objects.pickling import ByValuePickler, NamespaceUnpickler

TEXT_LIMIT_CHARS = 256_000
"""Length of a traceback or a message at most; the middle of a longer one is left out."""

_CHAIN_LIMIT = 8
_MEMBERS_LIMIT = 1000
_MIXED_LIMIT = 256
_HEAP_TYPE = 1 << 9
_OURS = "enginery."
_NOT_FIELDS = frozenset(
    {
        "args",
        "obj",
        "__cause__",
        "__context__",
        "__dict__",
        "__suppress_context__",
        "__traceback__",
        "__weakref__",
    }
)
_PICKLED_BY_ENGINERY = frozenset({"ename", "evalue", "traceback", "engine_info"})


class _Record(NamedTuple):
    """One exception as parts. `type`, `args` and the values of `state` and `fields` are pickles."""

    ename: str
    evalue: str
    traceback: str
    type: bytes | None
    args: tuple[bytes | str, ...]  # text stands for an argument that cannot be pickled
    state: dict[str, bytes]
    fields: dict[str, bytes]
    cause: _Record | None
    context: _Record | None
    suppress_context: bool
    members: list[_Record]


# ---------------------------------------------------------------- on the engine


def pack_failure(
    error: BaseException, *, engine: int | None = None, engine_uuid: str = "", method: str = ""
) -> Packed:
    """Make an exception portable. Never raises, whatever the exception is made of."""
    info = {"engine_id": engine, "engine_uuid": engine_uuid, "method": method}
    try:
        record = _take_apart(error, set(), depth=0)._replace(traceback=format_remote_traceback(error))
    except Exception as reason:  # noqa: BLE001 - broken exceptions: the name is worth more than the rest
        name = type(error).__name__
        text = f"{name}, and its details could not be taken: {type(reason).__name__}: {_safe_text(reason)}"
        record = _Record(name, text, "", None, (), {}, {}, None, None, False, [])
    return pack((info, _plain(record)))


def format_remote_traceback(error: BaseException) -> str:
    """The traceback as text, without the frames of the engine's own machinery above the user's."""
    _trim(error, set())
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception as reason:  # noqa: BLE001 - it runs `__str__`, `__notes__`, loaders of the user's
        return f"(the traceback could not be formatted: {type(reason).__name__}: {_safe_text(reason)})"
    return _shorten(text.rstrip("\n"))


def _trim(error: BaseException, seen: set[int]) -> None:
    if id(error) in seen:
        return
    seen.add(id(error))
    first: TracebackType | None = error.__traceback__
    while first is not None and str(first.tb_frame.f_globals.get("__name__", "")).startswith(_OURS):
        first = first.tb_next
    if first is not None:  # an error of the machinery itself keeps all it has
        error.__traceback__ = first
    for other in (error.__cause__, error.__context__):
        if other is not None:
            _trim(other, seen)


def _take_apart(error: BaseException, seen: set[int], *, depth: int) -> _Record:
    seen.add(id(error))
    original = getattr(type(error), "_remote_original", type(error))
    ename, evalue = original.__name__, ""
    if isinstance(error, RemoteError) and error.ename:  # it came from yet another engine
        ename, evalue = error.ename, error.evalue
    members: Sequence[BaseException] = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    args: tuple[Any, ...] = error.args[:1] if members else error.args
    return _Record(
        ename=ename,
        evalue=_shorten(evalue or _safe_text(error)),
        traceback="",
        type=_dump(original),
        args=tuple(_dump(arg) or _safe_repr(arg) for arg in args),
        state=_dump_all(vars(error)),
        fields=_dump_all(dict(_fields(error))),
        cause=_linked(error.__cause__, seen, depth),
        context=_linked(error.__context__, seen, depth),
        suppress_context=error.__suppress_context__,
        members=[_take_apart(member, seen, depth=depth + 1) for member in members[:_MEMBERS_LIMIT]],
    )


def _linked(error: BaseException | None, seen: set[int], depth: int) -> _Record | None:
    if error is None or id(error) in seen or depth >= _CHAIN_LIMIT:
        return None
    return _take_apart(error, seen, depth=depth + 1)


def _fields(error: BaseException) -> Iterator[tuple[str, Any]]:
    """C fields and slots: whatever is neither in `args` nor in ``__dict__``."""
    for cls in type(error).__mro__:
        for name, member in vars(cls).items():
            if not _is_field(name, member):
                continue
            try:
                value = member.__get__(error)
            except AttributeError:  # a slot that was never set
                continue
            if value is not None:
                yield name, value


def _is_field(name: str, member: Any) -> bool:
    if name in _NOT_FIELDS or (name.startswith("__") and name.endswith("__")):
        return False
    return isinstance(member, (MemberDescriptorType, GetSetDescriptorType))


def _dump(value: Any) -> bytes | None:
    stream = io.BytesIO()
    try:
        pickler = ByValuePickler(stream, with_companions=False)
        pickler.dump(value)
    except Exception:  # noqa: BLE001 - a part that cannot be pickled is left out; its text still travels
        return None
    return stream.getvalue()


def _dump_all(values: Mapping[str, Any]) -> dict[str, bytes]:
    dumped = {name: _dump(value) for name, value in values.items()}
    return {name: data for name, data in dumped.items() if data is not None}


def _safe_text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as reason:  # noqa: BLE001 - a broken `__str__` must not hide that the task failed
        return f"<no text: its __str__ raised {type(reason).__name__}>"


def _safe_repr(value: Any) -> str:
    try:
        return _shorten(repr(value))
    except Exception as reason:  # noqa: BLE001 - as above
        return f"<{type(value).__name__}, whose __repr__ raised {type(reason).__name__}>"


def _shorten(text: str) -> str:
    if len(text) > TEXT_LIMIT_CHARS:
        half = TEXT_LIMIT_CHARS // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    # Lone surrogates cannot be encoded by whoever prints or stores the text.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain(record: _Record) -> tuple[Any, ...]:
    """The record without classes of ours, so that it pickles to data alone."""
    cause = None if record.cause is None else _plain(record.cause)
    context = None if record.context is None else _plain(record.context)
    members = [_plain(member) for member in record.members]
    return tuple(record._replace(cause=cause, context=context, members=members))  # type: ignore[arg-type]


# ---------------------------------------------------------------- at the client


def unpack_failure(
    inline: Buffer, buffers: Sequence[Buffer] = (), *, namespace: dict[str, Any] | None = None
) -> RemoteError:
    """The exception of `pack_failure`: a RemoteError, and if possible of the original type. Never raises."""
    try:
        info, plain = unpack(inline, buffers)
        record = _from_plain(plain)
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError, IndexError, KeyError) as reason:
        return RemoteError("UnreadableFailure", f"the task failed, and its error cannot be read: {reason}")
    rebuild = _Rebuild(Arrival.at(namespace, stays=True), info)
    return rebuild.remote(record)


def _from_plain(plain: Sequence[Any]) -> _Record:
    record = _Record(*plain)
    return record._replace(
        cause=None if record.cause is None else _from_plain(record.cause),
        context=None if record.context is None else _from_plain(record.context),
        members=[_from_plain(member) for member in record.members],
    )


class _Rebuild:
    """Puts exceptions of one failure together."""

    def __init__(self, arrival: Arrival, info: Mapping[str, Any]) -> None:
        self._arrival = arrival
        self._info = {name: value for name, value in info.items() if value not in (None, "")}

    def remote(self, record: _Record) -> RemoteError:
        """A RemoteError of the original type; else a plain one with the original as its cause."""
        original = self._load_type(record)
        mixed = None if original is None else mixed_type(original)
        error = None if mixed is None else self._make(mixed, record)
        if isinstance(error, RemoteError):
            self._link(error, record)
        else:
            error = RemoteError()
            error.args = (record.ename, record.evalue)
            error.__cause__ = None if original is None else self._make(original, record)
            if error.__cause__ is None:
                self._link(error, record)
        error.__dict__.update(
            ename=record.ename, evalue=record.evalue, traceback=record.traceback, engine_info=dict(self._info)
        )
        return error

    def _local(self, record: _Record) -> BaseException:
        """An exception that another one names as its cause or context: of the original type alone."""
        original = self._load_type(record)
        error = None if original is None else self._make(original, record)
        if error is None:
            error = RemoteError(record.ename, record.evalue)
        self._link(error, record)
        return error

    def _link(self, error: BaseException, record: _Record) -> None:
        if record.cause is not None:
            error.__cause__ = self._local(record.cause)
        if record.context is not None:
            error.__context__ = self._local(record.context)
        error.__suppress_context__ = record.suppress_context

    def _load_type(self, record: _Record) -> type[BaseException] | None:
        loaded = None if record.type is None else self._load(record.type)
        return loaded if isinstance(loaded, type) and issubclass(loaded, BaseException) else None

    def _load(self, data: bytes | str, missing: Any = None) -> Any:
        if isinstance(data, str):
            return data
        try:
            return NamespaceUnpickler(io.BytesIO(data), self._arrival).load()
        except Exception:  # noqa: BLE001 - a module is lacking, a `__setstate__` raises: the texts remain
            return missing

    def _make(self, cls: type[BaseException], record: _Record) -> BaseException | None:
        args = tuple(self._load(arg) for arg in record.args)
        if record.members:
            args = (*args, [self.remote(member) for member in record.members])
        error = _new(cls, args)
        if error is None:
            return None
        error.args = args
        state = {name: self._load(data, _MISSING) for name, data in record.state.items()}
        vars(error).update({name: value for name, value in state.items() if value is not _MISSING})
        members = _members(cls)
        for name, data in record.fields.items():
            value = self._load(data, _MISSING)
            if name in members and value is not _MISSING:
                try:
                    members[name].__set__(error, value)
                except (AttributeError, TypeError):  # a field that only its constructor sets
                    continue
        return error


_MISSING = object()


def _members(cls: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found.update((name, member) for name, member in vars(base).items() if _is_field(name, member))
    return found


def _new(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException | None:
    """An instance, made by the built-in classes below alone; None where these want the user's code."""
    for base in cls.__mro__:
        if base.__flags__ & _HEAP_TYPE or not issubclass(base, BaseException):
            continue
        # A constructor may want other arguments, or not be the one of the class whose layout counts.
        for tried in (args, ()):
            try:
                error: BaseException = base.__new__(cls, *tried)
            except Exception:  # noqa: BLE001 - the next one may do
                continue
            return error
    return None


# ---------------------------------------------------------------- both types in one

_mixed: dict[type[BaseException], type[RemoteError] | None] = {}


def mixed_type(original: type[BaseException]) -> type[RemoteError] | None:
    """The class that is a RemoteError and `original`; None where there cannot or must not be one."""
    if issubclass(original, RemoteError):
        return original
    if original not in _mixed:
        if len(_mixed) >= _MIXED_LIMIT:
            del _mixed[next(iter(_mixed))]
        _mixed[original] = _make_mixed_type(original)
    return _mixed[original]


def _make_mixed_type(original: type[BaseException]) -> type[RemoteError] | None:
    if not issubclass(original, Exception) or issubclass(original, (StopIteration, StopAsyncIteration)):
        return None
    names: dict[str, Callable[..., Any] | str | type] = {
        "__doc__": original.__doc__ or "",
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__init__": original.__init__,  # so that ``type(error)(…)`` means what it means for the original
        "__reduce__": _reduce_mixed,
        "__reduce_ex__": _reduce_mixed,
        "_remote_original": original,
    }
    try:
        metaclass: Any = type(original)
        mixed = metaclass(original.__name__, (RemoteError, original), names)
    except Exception:  # noqa: BLE001 - a final class, another layout, an `__init_subclass__` that objects
        return None
    return mixed if isinstance(mixed, type) and issubclass(mixed, RemoteError) else None


def _reduce_mixed(error: RemoteError, _protocol: int = 0) -> tuple[Any, ...]:
    packed = pack_failure(error)
    return _unreduce, (packed.inline, [bytes(buffer) for buffer in packed.buffers], dict(vars(error)))


def _unreduce(inline: bytes, buffers: list[bytes], state: dict[str, Any]) -> RemoteError:
    error = unpack_failure(inline, buffers)
    error.__dict__.update({name: state[name] for name in _PICKLED_BY_ENGINERY if name in state})
    return error
