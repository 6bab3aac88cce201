"""Dependencies as users write them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from enginery.client.dependencies import Dependency, merge, read_dependency, show_dependency
from enginery.ids import ClientId, format_task_id, make_task_id
from enginery.protocol import messages
from tests.unit.client.fake_session import make_client

TASKS = tuple(make_task_id(ClientId(0x3FA9C01B), number) for number in (1, 2, 3))
A, B, C = map(format_task_id, TASKS)


def test_a_set_of_ids_with_terms() -> None:
    dependency = Dependency([A, B], all=False, failure=True)
    assert dependency == {A, B}
    assert (dependency.all, dependency.success, dependency.failure) == (False, True, True)
    assert Dependency(A) == {A}
    assert Dependency() == set()
    assert Dependency([A]).as_dict() == {"dependencies": [A], "all": True, "success": True, "failure": False}
    assert repr(Dependency([B, A])) == f"<Dependency on all of ['{A}', '{B}'], succeeded>"


@pytest.mark.parametrize(
    "how", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d)), Dependency.copy]
)
def test_copies_keep_the_terms(how: Any) -> None:
    twin = how(Dependency([A], all=False, success=False, failure=True))
    assert type(twin) is Dependency
    assert (twin, twin.terms) == ({A}, (False, False, True))


CASES = [
    # terms (all, success, failure), completed, failed; met, unreachable
    ((True, True, False), {A}, set(), False, False),
    ((True, True, False), {A, B, C}, set(), True, False),
    ((True, True, False), {A}, {B}, False, True),
    ((False, True, False), {A}, {B}, True, False),
    ((False, True, False), set(), {A}, False, False),
    ((False, True, False), set(), {A, B}, False, True),
    ((True, False, True), {A}, {B}, False, True),
    ((True, False, True), set(), {A, B}, True, False),
    ((False, False, True), {A, B}, set(), False, True),
    ((True, True, True), {A}, {B}, True, False),
    ((True, True, False), {A, B}, None, True, False),
]


@pytest.mark.parametrize(("terms", "completed", "failed", "met", "unreachable"), CASES)
def test_met_and_unreachable(terms: Any, completed: Any, failed: Any, met: bool, unreachable: bool) -> None:
    dependency = Dependency([A, B], *terms)
    assert dependency.check(completed, failed) is met
    assert dependency.unreachable(completed, failed) is unreachable


def test_nothing_to_depend_on_is_met() -> None:
    for every in (True, False):
        assert Dependency([], all=every).check(set(), set())
        assert not Dependency([], all=every).unreachable({A}, {B})
    assert read_dependency([]) is None


def test_every_form_that_a_flag_takes() -> None:
    rc, _ = make_client()
    result = rc[:].apply_async(int)
    own = set(result.msg_ids)
    for given, expected in (
        (A, {A}),
        ([A, B], {A, B}),
        ({A, B}, {A, B}),
        (result, own),
        ([result, A], {*own, A}),
        ({result}, own),
        (Dependency([A]), {A}),
        ([Dependency([A]), B, [C]], {A, B, C}),
        (Dependency([A, B]).as_dict(), {A, B}),
        (iter([A]), {A}),
    ):
        assert merge(given) == expected


@pytest.mark.parametrize(
    "wrap", [lambda d: d, lambda d: d.as_dict(), lambda d: [d], lambda d: (d.as_dict(),)]
)
def test_terms_survive_every_form(wrap: Any) -> None:
    dependency = Dependency([A, B], all=False, success=False, failure=True)
    record = read_dependency(wrap(dependency))
    assert record == messages.Dependency(TASKS[:2], False, False, True)
    shown = show_dependency(record)
    assert shown == dependency
    assert shown is not None
    assert shown.terms == dependency.terms


def test_several_of_one_kind_are_one() -> None:
    record = read_dependency([Dependency([B], failure=True), Dependency([A], failure=True)])
    assert record == messages.Dependency(TASKS[:2], True, True, True)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (3, TypeError, "dependencies are ids of tasks, AsyncResults, a Dependency, its dictionary, .* not 3"),
        ([3], TypeError, r"not 3 \(int\)"),
        ([None], TypeError, r"not None \(NoneType\)"),
        ("nonsense", ValueError, "'nonsense' is not a task id; task ids look like"),
        (
            {"msg_ids": [A]},
            ValueError,
            r"has the keys \['all', 'dependencies', 'failure', 'success'\], not \['msg_ids'\]",
        ),
        ({"dependencies": [A], "any": True}, ValueError, r"not \['any', 'dependencies'\]"),
        ([Dependency([A], all=False), B], ValueError, "cannot be merged into one"),
        ([Dependency([A], all=False), Dependency([B], all=False)], ValueError, "cannot be merged into one"),
        ([Dependency([A], failure=True), B], ValueError, "cannot be merged into one"),
        ({"dependencies": [A], "success": False}, ValueError, "success=True, failure=True or both"),
    ],
)
def test_bad_ones_are_told_what_was_expected(given: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        read_dependency(given)


def test_a_map_that_is_not_sent_yet_cannot_be_depended_on() -> None:
    rc, session = make_client()
    view = rc.load_balanced_view()
    ar = view.map_async(abs, range(5000))
    assert len(ar.msg_ids) < 5000
    with pytest.raises(ValueError, match="has items that were not sent yet; wait for it first"):
        view.after = ar
    ar.wait()
    view.after = ar
    assert view.after == set(ar.msg_ids)
    session.close()


def test_a_dependency_needs_an_end_that_counts() -> None:
    with pytest.raises(ValueError, match="success=True, failure=True or both"):
        Dependency([A], success=False)
