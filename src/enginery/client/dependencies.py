"""Dependency: tasks that another one waits for, as users write them and as records carry them.

Users may give ids, AsyncResults, a `Dependency`, the dictionary that `as_dict` makes of one, or lists and
sets of all these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from enginery.client.results.async_result import AsyncResult
from enginery.ids import format_task_id, parse_task_id
from enginery.protocol import messages

_FORMS = "ids of tasks, AsyncResults, a Dependency, its dictionary, or lists and sets of these"


class Terms(NamedTuple):
    """When tasks count as met."""

    all: bool = True
    success: bool = True
    failure: bool = False


class Dependency(set[str]):
    """Name tasks that must have ended before, or where, another one runs: a set of their ids.

    `all` asks for every one of them, else any will do; `success` and `failure` say which ends count. Raises
    TypeError for members that name no task, ValueError if neither end counts.

    >>> Dependency(["3fa9c01b-1", "3fa9c01b-2"], all=False).check({"3fa9c01b-2"})
    True
    """

    def __init__(
        self,
        dependencies: Any = (),
        all: bool = True,  # noqa: A002 - a public name
        success: bool = True,
        failure: bool = False,
    ) -> None:
        if isinstance(dependencies, Mapping):
            dependencies, (all, success, failure) = _read_dictionary(dependencies)  # noqa: A001
        super().__init__(_ids(dependencies))
        self.all = bool(all)
        self.success = bool(success)
        self.failure = bool(failure)
        if not (success or failure):
            raise ValueError("a dependency needs success=True, failure=True or both, else nothing meets it")

    def __repr__(self) -> str:
        return f"<Dependency on {'all' if self.all else 'any'} of {sorted(self)}, {self._ends()}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (sorted(self), *self.terms)

    def copy(self) -> Dependency:
        """Return another one with the same ids and terms."""
        return Dependency(self, *self.terms)

    @property
    def terms(self) -> Terms:
        return Terms(self.all, self.success, self.failure)

    def check(self, completed: Iterable[str], failed: Iterable[str] | None = None) -> bool:
        """Whether it is met, given the ids of tasks that have succeeded and of those that have failed."""
        met = self.intersection(self._counting(completed, failed, met=True))
        return len(met) == len(self) if self.all or not self else bool(met)

    def unreachable(self, completed: Iterable[str], failed: Iterable[str] | None = None) -> bool:
        """Whether it can never be met any more, given the same."""
        lost = self.intersection(self._counting(completed, failed, met=False))
        return bool(lost) if self.all else bool(self) and len(lost) == len(self)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a dictionary, which is accepted wherever a Dependency is."""
        return {
            "dependencies": sorted(self),
            "all": self.all,
            "success": self.success,
            "failure": self.failure,
        }

    def _counting(self, completed: Iterable[str], failed: Iterable[str] | None, *, met: bool) -> set[str]:
        """Of the tasks that have ended, those whose end counts, or those whose end does not."""
        found = set(completed) if self.success is met else set()
        if failed is not None and self.failure is met:
            found.update(failed)
        return found

    def _ends(self) -> str:
        if self.success and self.failure:
            return "ended"
        return "succeeded" if self.success else "failed"


# ---------------------------------------------------------------- as a flag


def read_dependency(value: Any) -> messages.Dependency | None:
    """What a user gives for `after` or `follow`, as records carry it; None if it names no task.

    Raises TypeError or ValueError that says what was expected.
    """
    dependency = merge(value)
    tasks = tuple(sorted(map(parse_task_id, dependency)))
    return messages.Dependency(tasks, *dependency.terms) if tasks else None


def show_dependency(record: messages.Dependency | None) -> Dependency | None:
    """The inverse, for attributes."""
    if record is None:
        return None
    return Dependency(map(format_task_id, record.tasks), record.all, record.success, record.failure)


def merge(value: Any) -> Dependency:
    """One Dependency out of whatever names tasks; several become one if that means the same."""
    if isinstance(value, Dependency):
        return value
    if isinstance(value, (str, AsyncResult, Mapping)) or not _is_collection(value):
        return Dependency(value)
    members = [merge(member) for member in value]
    if len(members) == 1:
        return members[0]
    kinds = {member.terms for member in members if member} or {Terms()}
    if len(kinds) > 1 or not next(iter(kinds)).all:
        raise ValueError(
            "dependencies with different terms, or several with all=False, cannot be merged into one; "
            "name all their tasks in one Dependency"
        )
    return Dependency(set().union(*members), *kinds.pop())


def _read_dictionary(given: Mapping[str, Any]) -> tuple[Any, Terms]:
    known = {"dependencies", *Terms._fields}
    unknown = set(given) - known
    if unknown or "dependencies" not in given:
        raise ValueError(
            f"a dependency as a dictionary has the keys {sorted(known)}, not {sorted(map(str, given))}; "
            "make one with Dependency(...).as_dict()"
        )
    return given["dependencies"], Terms(
        *(given.get(name, Terms._field_defaults[name]) for name in Terms._fields)
    )


def _ids(dependencies: Any) -> Iterator[str]:
    if isinstance(dependencies, (str, AsyncResult)):
        dependencies = [dependencies]
    elif isinstance(dependencies, Mapping) or not isinstance(dependencies, Iterable):
        raise _refusal(dependencies)
    for member in dependencies:
        if isinstance(member, str):
            yield member
        elif isinstance(member, AsyncResult):
            yield from _ids_of(member)
        else:
            raise _refusal(member)


def _ids_of(result: AsyncResult) -> list[str]:
    if not result._is_all_sent():
        raise ValueError(
            f"{result!r} cannot be depended on: it has items that were not sent yet; wait for it first"
        )
    return result.msg_ids


def _is_collection(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


def _refusal(value: Any) -> TypeError:
    return TypeError(f"dependencies are {_FORMS}, not {value!r} ({type(value).__name__})")
