"""Input that means nothing: what is raised says what was expected, and nothing stays behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import enginery as ipp
from tests.system.api.held import PATIENCE_S, Gate


@pytest.fixture(autouse=True)
def nothing_stays_outstanding(rc: ipp.Client) -> Iterator[None]:
    yield
    assert rc.wait(timeout=PATIENCE_S)
    assert rc.outstanding == set()


def closure_of(value: Any) -> Callable[[], Any]:
    return lambda: value


CALLS: dict[str, tuple[Callable[[ipp.Client], Any], type[Exception], str]] = {
    "an engine that is not there": (lambda rc: rc[7], IndexError, "there is no engine 7; the engines are"),
    "one of a list": (lambda rc: rc[0, 7], KeyError, "there is no engine 7"),
    "a negative one": (lambda rc: rc[-3], IndexError, "there is no engine -3: there are 2 engines"),
    "an index of text": (lambda rc: rc["0"], TypeError, "indexed with engine ids"),
    "targets of text": (lambda rc: rc.direct_view("some"), TypeError, "targets must be an engine id"),
    "no function": (lambda rc: rc[0].apply(7), TypeError, "a function is needed, not 7"),
    "args that are no list": (lambda rc: rc.apply(abs, 3), TypeError, "args must be a tuple or a list"),
    "args of text": (lambda rc: rc.apply(abs, "3"), TypeError, "args must be a tuple or a list"),
    "kwargs that are no dictionary": (
        lambda rc: rc.apply(abs, (), [1]), TypeError, "kwargs must be a dictionary",
    ),
    "an unknown flag": (lambda rc: rc[0].set_flags(colour=1), KeyError, "no flag of a DirectView"),
    "an unknown flag of apply": (lambda rc: rc.apply(abs, (1,), colour=1), KeyError, "no flag"),
    "after of a direct call": (lambda rc: rc.apply(abs, (1,), targets=0, after=[]), ValueError, "balanced"),
    "an unpicklable argument": (
        lambda rc: rc[0].apply(len, {"a": [threading.Lock()]}), TypeError, "lock",
    ),
    "an unpicklable push": (lambda rc: rc[0].push({"a": threading.Lock()}), TypeError, "lock"),
    "an unpicklable closure": (
        lambda rc: rc[0].apply(closure_of(threading.Lock())), TypeError, "lock",
    ),
    "push of no dictionary": (lambda rc: rc[0].push(3), TypeError, "push needs a dictionary"),
    "pull of no name": (lambda rc: rc[0].pull(3), TypeError, "pull needs a name"),
    "execute of no text": (lambda rc: rc[0].execute(3), TypeError, "execute needs source text"),
    "scatter of no sequence": (lambda rc: rc[:].scatter("a", 3), TypeError, "a sequence is needed, not 3"),
    "scatter in an unknown way": (lambda rc: rc[:].scatter("a", [1], dist="z"), ValueError, "dist is 'b'"),
    "map of nothing": (lambda rc: rc[:].map(abs), TypeError, "sequence"),
    "map over no sequence": (lambda rc: rc[:].map(abs, 3), TypeError, "int"),
    "a chunksize of 0": (
        lambda rc: rc.load_balanced_view().map(abs, [1], chunksize=0), ValueError, "chunksize",
    ),
    "a chunksize of text": (
        lambda rc: rc.load_balanced_view().map(abs, [1], chunksize="1"), TypeError, "chunksize",
    ),
    "retries of text": (lambda rc: rc[0].set_flags(retries="1"), TypeError, "retries must be a whole number"),
    "negative retries": (lambda rc: rc[0].set_flags(retries=-1), ValueError, "not be negative"),
    "a timeout of text": (
        lambda rc: rc.load_balanced_view(timeout="1"), TypeError, "timeout is a number of seconds",
    ),
    "a dependency on a number": (lambda rc: rc.apply(abs, (1,), after=3), TypeError, "dependencies are ids"),
    "a dependency on no id": (lambda rc: rc.apply(abs, (1,), after="xyz"), ValueError, "xyz"),
    "a dependency on nothing's end": (
        lambda rc: ipp.Dependency([], success=False), ValueError, "nothing meets it",
    ),
    "a signal of no name": (lambda rc: rc.send_signal("SIGWHAT"), ValueError, "there is no signal 'SIGWHAT'"),
    "a history index": (lambda rc: rc.get_result(10**7), IndexError, "there is no task 10000000 in"),
    "an id of no form": (lambda rc: rc.get_result("xyz"), ValueError, "xyz"),
    "an id of bytes": (lambda rc: rc.wait(b"3fa9c01b-1"), TypeError, "tasks are named by"),
    "purge of nothing": (lambda rc: rc.purge_results(), ValueError, "name the tasks"),
    "wait_for_engines without a number": (
        lambda rc: rc.wait_for_engines("many"), TypeError, "n must be a whole number",
    ),
    "an unknown key of a query": (lambda rc: rc.db_query({"colour": 1}), KeyError, "keys of a query are"),
    "a Reference of no text": (lambda rc: ipp.Reference(3), TypeError, "a Reference is made of"),
    "depend on no function": (lambda rc: ipp.depend("x"), TypeError, "depend takes a function"),
    "require without a name": (lambda rc: ipp.require(3), TypeError, "has no name"),
    "remote without a view": (ipp.remote, TypeError, "a view is needed"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_sentence_says_what_was_expected(rc: ipp.Client, name: str) -> None:
    call, error, sentence = CALLS[name]
    before = rc.history
    with pytest.raises(error) as caught:
        call(rc)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) > len("lock")
    assert rc.history == before


# ---------------------------------------------------------------- dependencies


def test_a_dependency_on_the_task_of_another_client(rc: ipp.Client, another: ipp.Client, gate: Gate) -> None:
    held = gate.hold(another.load_balanced_view())
    after = rc.apply(pow, (2, 2), after=held.msg_ids)
    follow = rc.apply(pow, (2, 3), follow=held)
    assert rc.wait(after, timeout=0) is False
    gate.open()
    assert (after.get(timeout=PATIENCE_S), follow.get(timeout=PATIENCE_S)) == (4, 8)
    held.wait(PATIENCE_S)
    assert follow.engine_id == held.engine_id


def test_a_dependency_on_a_direct_task(rc: ipp.Client, gate: Gate) -> None:
    held = gate.hold(rc[1])
    after, follow = rc.apply(pow, (2, 2), after=held), rc.apply(pow, (2, 3), follow=held)
    gate.open()
    assert (after.get(timeout=PATIENCE_S), follow.get(timeout=PATIENCE_S)) == (4, 8)
    assert follow.engine_id == 1


def test_a_dependency_on_an_id_that_nobody_knows(rc: ipp.Client) -> None:
    for keyword in ("after", "follow"):
        with pytest.raises(ipp.InvalidDependency, match="3fa9c01b-17"):
            rc.apply(pow, (1, 1), **{keyword: "3fa9c01b-17"}).get(timeout=PATIENCE_S)
    known = rc.apply(pow, (1, 1))
    some = ipp.Dependency([*known.msg_ids, "3fa9c01b-17"], all=False)
    with pytest.raises(ipp.InvalidDependency):
        rc.apply(pow, (1, 1), after=some).get(timeout=PATIENCE_S)


def test_a_dependency_on_a_purged_id(rc: ipp.Client) -> None:
    """Results are purged, not how tasks ended: what the scheduler still remembers counts."""
    good, bad = rc.apply(pow, (2, 2)), rc.apply(int, ("x",))
    rc.wait([good, bad], PATIENCE_S)
    rc.purge_results([good, bad])
    assert rc.apply(pow, (2, 3), after=good.msg_ids).get(timeout=PATIENCE_S) == 8
    with pytest.raises(ipp.ImpossibleDependency):
        rc.apply(pow, (2, 3), after=bad.msg_ids).get(timeout=PATIENCE_S)


def next_id(rc: ipp.Client, ahead: int = 1) -> str:
    """The id that a coming task of this client will have."""
    last = rc.apply(pow, (1, 1))
    last.wait(PATIENCE_S)
    client, _, number = last.msg_ids[0].partition("-")
    return f"{client}-{int(number) + ahead}"


def test_a_dependency_on_itself(rc: ipp.Client) -> None:
    for keyword in ("after", "follow"):
        own = next_id(rc)
        ar = rc.apply(pow, (1, 1), **{keyword: own})
        assert ar.msg_ids == [own]
        with pytest.raises(ipp.ImpossibleDependency):
            ar.get(timeout=PATIENCE_S)


def test_a_cycle_of_after(rc: ipp.Client) -> None:
    """The first one names a task that is not there yet: it is refused, and with it who waits for it."""
    second_id = next_id(rc, ahead=2)
    first = rc.apply(pow, (1, 1), after=second_id)
    second = rc.apply(pow, (1, 1), after=first)
    assert second.msg_ids == [second_id]
    for ar in (first, second):
        with pytest.raises(ipp.ImpossibleDependency):
            ar.get(timeout=PATIENCE_S)


def test_a_dependency_on_what_was_aborted(rc: ipp.Client, gate: Gate) -> None:
    gate.hold(rc[0])
    waiting = rc[0].apply_async(pow, 1, 1)
    needs, minds = (
        rc.apply(pow, (1, 1), after=waiting),
        rc.apply(pow, (1, 1), after=ipp.Dependency(waiting, success=False, failure=True)),
    )
    waiting.abort()
    with pytest.raises(ipp.ImpossibleDependency):
        needs.get(timeout=PATIENCE_S)
    assert minds.get(timeout=PATIENCE_S) == 1


def test_a_chain_falls_at_once(rc: ipp.Client, gate: Gate) -> None:
    held = gate.hold(rc[0])
    failing = rc.apply(int, ("x",), after=held)
    chain = [failing]
    for _ in range(30):
        chain.append(rc.apply(pow, (1, 1), after=chain[-1]))
    gate.open()
    with pytest.raises(ValueError, match="invalid literal"):
        failing.get(timeout=PATIENCE_S)
    for ar in chain[1:]:
        with pytest.raises(ipp.ImpossibleDependency):
            ar.get(timeout=PATIENCE_S)


def test_a_dependency_on_a_map_that_was_not_sent_as_a_whole(rc: ipp.Client, gate: Gate) -> None:
    gate.hold(rc[:])
    ar = rc.load_balanced_view().map_async(abs, range(5000))
    with pytest.raises(ValueError, match="items that were not sent yet"):
        rc.apply(pow, (1, 1), after=ar)
    with pytest.raises(ValueError, match="not been sent as a whole"):
        ipp.AsyncResult.join(ar, ar)
    gate.open()
    ar.wait(PATIENCE_S)
    assert rc.apply(pow, (1, 1), after=ar).get(timeout=PATIENCE_S) == 1


# ---------------------------------------------------------------- the rest of the list


def test_scatter_of_fewer_items_than_engines(rc: ipp.Client) -> None:
    rc[:].scatter("a", [5], block=True)
    assert rc[:]["a"] == [[5], []]
    rc[:].scatter("a", [], block=True)
    assert rc[:]["a"] == [[], []]
    rc[:].scatter("a", "x", flatten=True, block=True)
    assert rc[:]["a"] == ["x", ""]


def test_results_that_cannot_be_pickled_name_the_value(rc: ipp.Client) -> None:
    for f in (lambda: __import__("threading").Lock(), lambda: [{"k": open("/dev/null")}]):  # noqa: SIM115
        with pytest.raises(ipp.RemoteError) as caught:
            rc[0].apply_sync(f)
        assert "pickle" in str(caught.value)
    with pytest.raises(ipp.RemoteError):
        rc[0].execute("lock = __import__('threading').Lock()", block=True)
        rc[0].pull("lock", block=True)
    rc.clear(block=True)


def test_a_function_that_is_called_wrongly(rc: ipp.Client) -> None:
    with pytest.raises(TypeError, match="argument"):
        rc[0].apply_sync(from_nothing, 1, 2, 3)
    assert rc[0].apply_sync(from_nothing) is None


def from_nothing() -> None:
    return None


def test_recursion_and_huge_texts_come_back_as_errors(rc: ipp.Client) -> None:
    def forever(n: int) -> int:
        return forever(n + 1)

    with pytest.raises(RecursionError):
        rc[0].apply_sync(forever, 0)

    def shout() -> None:
        raise ValueError("x" * 1_000_000)

    with pytest.raises(ValueError, match="xxx"):
        rc[0].apply_sync(shout)
    assert rc[0].apply_sync(pow, 2, 2) == 4
