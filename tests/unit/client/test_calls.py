"""What is sent for a call."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest

from enginery.client.calls import CallMaker, pack_columns
from enginery.client.flags import Flags
from enginery.errors import TooLarge
from enginery.ids import EngineId, TaskId
from enginery.objects.functions import FunctionCache
from enginery.objects.packing import unpack
from enginery.protocol.messages import Dependency, Kind


@pytest.fixture
def maker() -> CallMaker:
    return CallMaker(FunctionCache(), Flags(label="night", retries=2), candidates=(EngineId(1),))


def test_calls_of_one_function_share_one_object(maker: CallMaker) -> None:
    first, second = maker.call(abs, (1,), {}), maker.call(abs, (2,), {})
    assert first.options is second.options
    assert first.options.kind is Kind.CALL
    assert (first.options.name, first.options.label, first.options.retries) == ("abs", "night", 2)
    assert first.options.candidates == (1,)
    assert maker.call(len, ([],), {}).options is not first.options
    assert unpack(second.payload) == ((2,), {})


def test_the_function_is_the_first_blob_and_is_kept(maker: CallMaker) -> None:
    array = np.arange(100_000)
    call = maker.call(abs, (array,), {})
    function, argument = call.blobs
    assert function.blob_id == call.options.function
    assert function.keep
    assert len(argument.blob_id) == 16
    assert not argument.keep
    assert np.shares_memory(np.frombuffer(argument.data, array.dtype), array)


def test_an_argument_that_cannot_be_pickled_is_named(maker: CallMaker) -> None:
    with pytest.raises(TypeError, match=r"argument 'lock', of type _thread\.lock, cannot be sent"):
        maker.call(abs, (1,), {"lock": threading.Lock()})


def test_a_pushed_value_that_cannot_be_pickled_is_named(maker: CallMaker) -> None:
    with pytest.raises(TypeError, match=r"argument 'b', of type _thread\.lock, cannot be sent"):
        maker.push({"a": 1, "b": threading.Lock()})


def test_an_item_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(TypeError, match=r"item 12 of sequence 1, of type _thread\.lock, cannot be sent"):
        pack_columns(([1, 2, 3], [1, 2, threading.Lock()]), 10)


class Stubborn:
    def __reduce__(self) -> str:
        raise pickle.PicklingError("not me")


def test_a_pickling_error_stays_one() -> None:
    with pytest.raises(
        pickle.PicklingError, match=r"item 0, of type .*Stubborn, cannot be sent: PicklingError: not me"
    ):
        pack_columns(([Stubborn()],), 0)


def test_options_that_do_not_fit_are_refused_before_anything_is_queued() -> None:
    flags = Flags(after=Dependency(tuple(TaskId(2**40 + number) for number in range(150_000))))
    calls = CallMaker(FunctionCache(), flags)
    with pytest.raises(TooLarge, match=r"the tasks named in after and follow.* has 1\.3 MiB; the limit is"):
        calls.execute("1", "")
