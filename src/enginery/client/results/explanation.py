"""`ar.explain()`: why a result is not there yet, and where the time of what has ended went."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from enginery.client.asking import Asker
from enginery.client.contract import TaskSession
from enginery.client.results.outcome import Outcome
from enginery.client.text_table import text_table
from enginery.core.explain import Phases, phases
from enginery.errors import ClientClosed, ClusterNotResponding
from enginery.ids import NO_ENGINE, TaskId, format_task_id
from enginery.protocol.messages import AskReasons, Reason, ReasonsAnswer

TASKS_PER_QUESTION = 10_000
ANSWER_S = 5.0
_HEADINGS = ("", *("return" if name == "back" else name for name in Phases._fields))


class Explanation:
    """Why tasks have not ended, and where the time of those that have went. `str` is text.

    >>> print(result.explain())                                         # doctest: +SKIP
    2 of 3 tasks have not ended:
      ready: 2 of 2 engines that could take it have work to do (task 3fa9c01b-18 and 1 more)
    1 has ended:
                queue  transfer  unpickle    run  pickle  return
      seconds   0.000     0.000     0.000  1.502   0.000   0.000
    """

    def __init__(
        self,
        reasons: Sequence[Reason],
        ended: Sequence[Phases],
        *,
        unfinished: int,
        done: int,
        trouble: str = "",
    ) -> None:
        self.reasons = list(reasons)
        self.ended = list(ended)
        """Of each task that has run and ended: the parts of its time, in seconds."""
        self.unfinished = unfinished
        self.done = done
        self.trouble = trouble
        """Why the controller could not be asked; empty if it could."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values; times in seconds, means over the tasks that have ended."""
        return {
            "unfinished": self.unfinished,
            "done": self.done,
            "reasons": [_reason_dict(reason) for reason in self.reasons],
            "mean_s": None if not self.ended else _mean(self.ended)._asdict(),
            "longest_s": None if not self.ended else max(self.ended, key=sum)._asdict(),
            "trouble": self.trouble,
        }

    def __str__(self) -> str:
        lines = []
        total = self.unfinished + self.done
        if self.unfinished:
            lines.append(f"{self.unfinished:,} of {_tasks(total)} {_have(self.unfinished)} not ended:")
            lines += [f"  {_reason_line(reason)}" for reason in self.reasons]
            if self.trouble:
                lines.append(f"  {self.trouble}")
            elif not self.reasons:
                lines.append("  the controller has none of them: their results are on their way here")
        if self.done:
            lines.append(
                f"{self.done:,} of {_tasks(total)} {_have(self.done)} ended" + (":" if self.ended else "")
            )
        if self.ended:
            lines += [f"  {line}" for line in text_table(self._times())]
        return "\n".join(lines) or "there is no task"

    __repr__ = __str__

    def _times(self) -> list[tuple[str, ...]]:
        if len(self.ended) == 1:
            return [_HEADINGS, _seconds("seconds", self.ended[0])]
        longest = max(self.ended, key=sum)
        return [_HEADINGS, _seconds("mean, s", _mean(self.ended)), _seconds("longest, s", longest)]


def explain_outcomes(session: TaskSession, outcomes: Sequence[Outcome]) -> Explanation:
    """Ask the controller about those that have not ended; the others say it themselves. Never raises."""
    unfinished = [outcome for outcome in outcomes if outcome.result is None]
    done = [(outcome.result, outcome.received) for outcome in outcomes if outcome.result is not None]
    times = [phases(result, received=received) for result, received in done]
    reasons: list[Reason] = []
    trouble = ""
    tasks = [outcome.task for outcome in unfinished if outcome.task is not None]
    try:
        for start in range(0, len(tasks), TASKS_PER_QUESTION):
            reasons += _ask(session, tasks[start : start + TASKS_PER_QUESTION])
    except (ClusterNotResponding, ClientClosed) as error:
        trouble = f"the controller cannot be asked: {error}"
    return Explanation(
        reasons,
        [each for each in times if each is not None],
        unfinished=len(unfinished),
        done=len(done),
        trouble=trouble,
    )


def _ask(session: TaskSession, tasks: list[TaskId]) -> list[Reason]:
    asker = Asker(lambda: session, "the cluster")
    return asker.ask(lambda number: AskReasons(number, tasks), ReasonsAnswer, timeout_s=ANSWER_S).reasons


def _mean(ended: Sequence[Phases]) -> Phases:
    return Phases(*(fmean(column) for column in zip(*ended, strict=True)))


def _seconds(name: str, times: Phases) -> tuple[str, ...]:
    return (name, *(f"{part:.3f}" for part in times))


def _reason_line(reason: Reason) -> str:
    which = f"task {format_task_id(reason.first)}"
    if reason.tasks > 1:
        which += f" and {reason.tasks - 1:,} more"
    return f"{reason.state}: {reason.why} ({which})"


def _reason_dict(reason: Reason) -> dict[str, Any]:
    return {
        "tasks": reason.tasks,
        "first": format_task_id(reason.first),
        "state": reason.state,
        "why": reason.why,
        "engine": None if reason.engine == NO_ENGINE else int(reason.engine),
    }


def _tasks(number: int) -> str:
    return f"{number:,} task{'' if number == 1 else 's'}"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"
