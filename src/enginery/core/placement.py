"""Where a balanced task may go, and which of the engines with room there gets it.

A scheme is a pure function from the engines with room to one of them. Randomness is handed in. The names are
those of ipyparallel:

* ``leastload``: the fewest tasks; among equals the one that was given a task longest ago. The default.
* ``lru``: the one that was given a task longest ago, whatever it holds.
* ``plainrandom``: any, all alike.
* ``twobin``: two at random, of these the one that was given a task longest ago.
* ``weighted``: two at random, those with few tasks more often; of these the one with fewer tasks.
* ``pure``: all engines in turn, without regard to what they hold: nothing bounds that but bytes (or a `hwm`),
  and nothing is taken back from one engine for another. Dependencies, retries and targets hold all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from enginery.ids import EngineId, TaskId


class Destination(NamedTuple):
    """Where a balanced task may go. Tasks of one destination share a queue.

    `refused` and `failed` hold lives of engines (`EngineLoad.life`), so that another process under the same
    id is not meant.
    """

    engines: tuple[EngineId, ...] = ()  # none named = all
    refused: frozenset[int] = frozenset()  # these have said that the task cannot run there
    failed: frozenset[int] = frozenset()  # the task has failed there: taken only when there is no other
    family: tuple[TaskId, ...] = ()  # its ancestors: engines where one of these waits take it too


ANYWHERE: Final = Destination()


class Randomness(Protocol):
    """What schemes need of a `random.Random`."""

    def random(self) -> float: ...

    def randrange(self, stop: int, /) -> int: ...


class Place(Protocol):
    """What schemes need of an engine."""

    @property
    def task_count(self) -> int: ...

    @property
    def given_at(self) -> int: ...


_Place = TypeVar("_Place", bound=Place)


def choose_least_loaded(places: Sequence[_Place], randomness: Randomness) -> _Place:
    return min(places, key=lambda place: (place.task_count, place.given_at))


def choose_longest_unused(places: Sequence[_Place], randomness: Randomness) -> _Place:
    return min(places, key=lambda place: place.given_at)


def choose_any(places: Sequence[_Place], randomness: Randomness) -> _Place:
    return places[randomness.randrange(len(places))]


def choose_longer_unused_of_two(places: Sequence[_Place], randomness: Randomness) -> _Place:
    return choose_longest_unused([choose_any(places, randomness), choose_any(places, randomness)], randomness)


def choose_less_loaded_of_two(places: Sequence[_Place], randomness: Randomness) -> _Place:
    weights = [1 / (1 + place.task_count) for place in places]
    total = sum(weights)
    two = [places[_find(weights, randomness.random() * total)] for _ in range(2)]
    return choose_least_loaded(two, randomness)


def _find(weights: Sequence[float], point: float) -> int:
    """The index of the weight that a point on the line of all weights falls on."""
    for index, weight in enumerate(weights):
        point -= weight
        if point < 0:
            return index
    return len(weights) - 1  # sums of floats may miss the end


Scheme = Callable[[Sequence[_Place], Randomness], _Place]

LEAST_LOAD = "leastload"
PURE = "pure"

SCHEMES: Final[dict[str, Scheme]] = {  # type: ignore[type-arg]
    LEAST_LOAD: choose_least_loaded,
    "lru": choose_longest_unused,
    "plainrandom": choose_any,
    "twobin": choose_longer_unused_of_two,
    "weighted": choose_less_loaded_of_two,
    PURE: choose_longest_unused,
}


class _NoRandomness:
    """Stands in where none was handed in: only schemes that need none may then be chosen."""

    def random(self) -> float:
        raise TypeError("this scheme needs a source of randomness")

    def randrange(self, stop: int, /) -> int:
        raise TypeError("this scheme needs a source of randomness")


class Placement:
    """A scheme, the bound on tasks in an engine, and the randomness for it.

    `hwm` is how many tasks an engine holds at a time; 0 is no bound, None a window of time. Raises ValueError
    for a scheme or a bound that does not exist.
    """

    __slots__ = ("choose", "hwm", "jitter", "randomness", "scheme")

    def __init__(
        self, scheme: str = LEAST_LOAD, hwm: int | None = None, randomness: Randomness | None = None
    ) -> None:
        if scheme not in SCHEMES:
            raise ValueError(f"there is no scheme {scheme!r}; the schemes are: {', '.join(SCHEMES)}")
        if hwm is not None and hwm < 0:
            raise ValueError(
                f"hwm is the number of tasks that an engine holds, 0 for no bound; {hwm} is below it"
            )
        self.scheme = scheme
        self.hwm = 0 if hwm is None and scheme == PURE else hwm
        self.jitter = randomness  # where any will do, and none too
        self.randomness: Randomness = _NoRandomness() if randomness is None else randomness
        self.choose = SCHEMES[scheme]

    def __repr__(self) -> str:
        return f"<Placement {self.scheme}, hwm={self.hwm}>"
