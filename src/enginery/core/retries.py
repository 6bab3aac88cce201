"""When a task that has failed is tried again, and when it is not.

After each failed attempt a task rests: `FIRST_REST_S`, twice as long after the next one, and so on up to
`LONGEST_REST_S`; of each rest a random part of up to a half is left out, so that tasks that have failed
together do not come back together. So a service that is down for a moment does not use up all attempts, and
engines that die as soon as they are started do not use them up either.

A task that ends its engine does so again on the next one. What has begun there is tried again only if
`retries` says so. What had not begun is tried again unasked, which does no harm, unless nothing else had
begun on that engine either: then the engine may have died of the task all the same, when it took it in. After
`DEATHS_BORNE` such deaths, or as many as `retries` allows attempts if that is more, the task is given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from enginery.core.placement import Randomness
from enginery.ids import EngineId

FIRST_REST_S = 0.05
LONGEST_REST_S = 5.0
DEATHS_BORNE = 3
_DOUBLINGS = 10  # more than it takes to come to the longest one


def rest_s(failures: int, randomness: Randomness | None) -> float:
    """How long a task rests after so many failed attempts, one at least; without randomness the most.

    >>> [rest_s(failures, None) for failures in (1, 2, 3, 100)]
    [0.05, 0.1, 0.2, 5.0]
    """
    longest = min(FIRST_REST_S * (1 << min(failures - 1, _DOUBLINGS)), LONGEST_REST_S)
    return longest if randomness is None else longest * (1.0 - randomness.random() / 2)


def is_deadly(deaths: int, retries: int) -> bool:
    """Whether so many engines have died with a task that no further one is to be given it."""
    return deaths >= max(DEATHS_BORNE, retries + 1)


class Death(NamedTuple):
    """An engine that has died with a task, and of what."""

    engine: EngineId
    cause: str


def describe_deaths(deaths: Sequence[Death]) -> str:
    """Why a task is given up: of what its last engine has died, and those before it.

    >>> describe_deaths([Death(EngineId(0), "killed"), Death(EngineId(2), "exited with code 3")])
    'exited with code 3; before that it was lost with engine 0 (killed)'
    """
    *others, last = deaths
    named = ", ".join(f"engine {death.engine} ({death.cause})" for death in others)
    return f"{last.cause}; before that it was lost with {named}" if named else last.cause
