"""Set-up that stays: calls that the controller makes again on engines that come late, or come again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from enginery.client.asking import Asker
from enginery.client.calls import PreparedCall
from enginery.client.results.async_result import AsyncResult
from enginery.protocol.messages import AskSetUp, ForgetSetUp, SetUpAnswer, clean_text

if TYPE_CHECKING:
    from enginery.client.views.direct import DirectView

NAME_LIMIT = 300
"""Characters of a step's name."""
LINE_LETTERS = 60


class SetUpStep(NamedTuple):
    """A call that is kept, see `Client.setup`."""

    number: int
    what: str
    """``"push a, b"``, ``"execute 'import numpy as np'"``, ``"on_join prepare"``; of one name and for the
    same engines the last one counts."""
    engines: list[int] | str
    """Whose places it is for, or ``"all"``: every engine that comes."""
    since: datetime
    size_bytes: int
    label: str


class SetUpMethods:
    """The part of a `Client` that is about engines to come."""

    _asker: Asker

    def direct_view(self, targets: Any = "all", **flags: Any) -> DirectView:
        """All engines, or some of them."""
        raise NotImplementedError

    def shutdown(
        self, targets: Any = "all", restart: bool = False, hub: bool = False, block: bool | None = None
    ) -> Future[None] | None:
        """End engines."""
        raise NotImplementedError

    def restart(self, targets: Any = "all", block: bool | None = None) -> Future[None] | None:
        """Start other engines in the places of these, under the same ids; what is kept is made there first.

        Their namespaces are lost, and so are tasks that run there. With `block` it is waited for until they
        are back; else a Future says when they have been started. Raises as `shutdown`.

        >>> rc.restart(2, block=True)                                   # doctest: +SKIP
        """
        return self.shutdown(targets, restart=True, block=block)

    def on_join(self, f: Callable[[], Any]) -> AsyncResult:
        """Call ``f()`` on each engine that is there, and on each that comes later, before all else.

        So too on those that are started again. Returns the result of the calls on those that are there now;
        if one of them raises, `f` is not kept. A function of the same name takes the place of the one before.
        `view.push`, `view.execute` and ``%%px`` keep with ``keep=True`` and ``--keep``. Raises
        NoEnginesRegistered if there is none yet.

        >>> rc.on_join(connect_to_database)                             # doctest: +SKIP
        <AsyncResult(connect_to_database): waiting>
        """
        return self.direct_view("all").call_kept(f)

    def setup(self) -> list[SetUpStep]:
        """What is made on engines that come, in order: see `on_join`.

        >>> [step.what for step in rc.setup()]                          # doctest: +SKIP
        ['push table', 'on_join connect_to_database']
        """
        answer = self._asker.ask(AskSetUp, SetUpAnswer)
        return [
            SetUpStep(
                step.step,
                step.what,
                [int(engine) for engine in step.engines] or "all",
                datetime.fromtimestamp(step.since, UTC),
                step.size_bytes,
                step.label,
            )
            for step in answer.steps
        ]

    def forget_setup(self, steps: int | SetUpStep | Iterable[int | SetUpStep] | None = None) -> None:
        """Keep these steps no longer, by their numbers or as `setup` lists them; all of them by default.

        What they have done on the engines stays.
        """
        if steps is None:
            numbers: list[int] = []
        else:
            named = [steps] if isinstance(steps, (int, SetUpStep)) else list(steps)
            numbers = [step if isinstance(step, int) else step.number for step in named]
            if not numbers:
                return
        self._asker.order(lambda request: ForgetSetUp(request, numbers))


def kept(call: PreparedCall, what: str, *, for_all: bool) -> PreparedCall:
    """This call, to be kept under a name."""
    options = msgspec.structs.replace(call.options, keep=clean_text(what[:NAME_LIMIT]), keep_for_all=for_all)
    return call._replace(options=options)


def name_of_push(names: Iterable[str]) -> str:
    return f"push {', '.join(sorted(names))}"


def name_of_text(code: str) -> str:
    """The same for the same text."""
    lines = [line.strip() for line in code.splitlines() if line.strip()]
    line = lines[0] if lines else ""
    if len(lines) <= 1 and len(line) <= LINE_LETTERS:
        return f"execute {line!r}"
    digest = hashlib.blake2b(code.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"execute {line[:LINE_LETTERS]!r}… ({digest})"


def name_of_function(call: PreparedCall) -> str:
    """A function's name; one without a name of its own is known by its content."""
    name = call.options.name
    return f"on_join {name if name != '<lambda>' else f'<lambda> {call.options.function.hex()[:8]}'}"
