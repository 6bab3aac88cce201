"""DirectView: calls and names on engines that are named, each with its own live namespace."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from enginery.client.map_driver import start_direct_map
from enginery.client.results import AsyncMapResult, AsyncResult
from enginery.client.views.targets import Targets, normalise
from enginery.client.views.view import View, check_callable
from enginery.errors import NoEnginesRegistered
from enginery.ids import EngineId

if TYPE_CHECKING:
    from enginery.client.client import Client

_MAP_FLAGS = frozenset({"return_exceptions", "progress", "label", "track"})
_cells = itertools.count(1)


class DirectView(View):
    """Run code on certain engines, and read and write the names of their namespaces.

    Made by indexing a client: ``rc[0]`` gives bare values, ``rc[:]``, ``rc[0, 2]`` lists in the order of
    targets.

    >>> view = rc[:]                                                    # doctest: +SKIP
    >>> view["a"] = 7                                                   # doctest: +SKIP
    >>> view.apply_sync(lambda x: x + a, 1)                             # doctest: +SKIP
    [8, 8]
    """

    _targets: Targets
    _client: Client

    # ------------------------------------------------------------ code

    def execute(
        self,
        code: str,
        silent: bool = True,
        targets: Any = None,
        block: bool | None = None,
        label: str | None = None,
    ) -> AsyncResult:
        """Run source text in the engines' namespaces; an AsyncResult, whose `stdout` has what was printed.

        When blocking, it also is the result that is returned, after errors have been raised.
        """
        if not isinstance(code, str):
            raise TypeError(f"execute needs source text, not {code!r} ({type(code).__name__})")
        view = self._elsewhere(targets, label)
        call = view._calls().execute(
            code, f"<enginery input {next(_cells)} of {view._client.session.client_id:08x}>"
        )
        origin = view._origin("execute", is_single=view._is_single())._replace(source=code)
        result = view._send(call, view._targets_now(), origin)
        if self.block if block is None else block:
            self._wait_or_cancel(result)
            result.get()
        return result

    # ------------------------------------------------------------ names

    def push(
        self,
        ns: Mapping[str, Any],
        targets: Any = None,
        block: bool | None = None,
        track: bool | None = None,
        label: str | None = None,
    ) -> Any:
        """Set names in the engines' namespaces; None for each target if blocking, else an AsyncResult.

        Raises TypeError unless `ns` is a dictionary with texts as keys, or naming the value that cannot be
        sent.
        """
        if not isinstance(ns, Mapping):
            raise TypeError(f"push needs a dictionary of names and values, not {ns!r} ({type(ns).__name__})")
        for name in ns:
            _check_name(name, "push")
        view = self._elsewhere(targets, label)
        origin = view._origin("push", is_single=view._is_single())
        return self._finish(view._send(view._calls().push(ns), view._targets_now(), origin), block)

    def pull(
        self,
        names: str | Iterable[str],
        targets: Any = None,
        block: bool | None = None,
        label: str | None = None,
    ) -> Any:
        """Fetch names, or values of expressions: one per target for a text, a list per target for several.

        Raises the engine's NameError for a name that it does not have.
        """
        is_single = isinstance(names, str)
        if is_single:
            wanted = [str(names)]
        elif isinstance(names, (list, tuple, set, frozenset)):
            wanted = list(names)
        else:
            raise TypeError(f"pull needs a name or a list of names, not {names!r} ({type(names).__name__})")
        for name in wanted:
            _check_name(name, "pull")
        view = self._elsewhere(targets, label)
        call = view._calls().pull(wanted, is_single=is_single)
        origin = view._origin("pull", is_single=view._is_single())
        return self._finish(view._send(call, view._targets_now(), origin), block)

    def get(self, key: str) -> Any:
        """Fetch a name and wait for it; one value per target."""
        return self.pull(key, block=True)

    def update(self, ns: Mapping[str, Any]) -> Any:
        """Set names; the same as `push`."""
        return self.push(ns)

    def __getitem__(self, key: str) -> Any:
        return self.get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    # A view has items but no length of them: without this, `for x in view` would pull the names 0, 1, 2, …
    __iter__ = None

    # ------------------------------------------------------------ inside

    def _normalise(self, targets: Any) -> Targets:
        return normalise(targets, self._client.engine_ids)

    def _engine_ids(self) -> tuple[EngineId, ...]:
        targets = self._targets
        if isinstance(targets, str):
            return self._client.engine_ids
        return targets if isinstance(targets, tuple) else (targets,)

    def _targets_now(self) -> tuple[EngineId, ...]:
        engines = self._engine_ids()
        if not engines:
            raise NoEnginesRegistered()
        return engines

    def _is_single(self) -> bool:
        return isinstance(self._targets, int)

    def _elsewhere(self, targets: Any, label: str | None) -> DirectView:
        """This view, or the one for a call with other targets or another label."""
        if targets is None and label is None:
            return self
        return self._client.direct_view(
            self._targets if targets is None else targets, label=self.label if label is None else label
        )

    def _call(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncResult:
        check_callable(f)
        call = self._calls().call(f, args, kwargs)
        origin = self._origin(call.options.name, is_single=self._is_single())
        return self._send(call, self._targets_now(), origin)

    def _map(
        self, f: Callable[..., Any], sequences: tuple[Iterable[Any], ...], **flags: Any
    ) -> AsyncMapResult:
        maker, origin, map_flags = self._map_parts(f, flags, allowed=_MAP_FLAGS)
        return start_direct_map(
            self._client.session,
            maker,
            f,
            sequences,
            origin=origin,
            flags=map_flags,
            engines=self._targets_now(),
        )


def _check_name(name: Any, what: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{what}: names must be texts, not {name!r} ({type(name).__name__})")
