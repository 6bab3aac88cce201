"""LoadBalancedView: calls on whichever engine is free."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from enginery.client.calls import CallMaker, Flags
from enginery.client.map_driver import start_balanced_map
from enginery.client.results import AsyncMapResult, AsyncResult
from enginery.client.views.targets import normalise
from enginery.client.views.view import View, check_callable
from enginery.errors import NoEnginesRegistered
from enginery.ids import EngineId

if TYPE_CHECKING:
    from enginery.client.client import Client

_MAP_FLAGS = frozenset({"return_exceptions", "progress", "label", "chunksize", "ordered", "buffersize"})


class LoadBalancedView(View):
    """Run functions on whichever engine is free, each call on exactly one.

    `targets` restricts the choice; None is all engines, also those that come later.

    >>> view = rc.load_balanced_view()                                  # doctest: +SKIP
    >>> view.map_sync(abs, [-1, 2, -3])                                 # doctest: +SKIP
    [1, 2, 3]
    """

    _targets: tuple[EngineId, ...] | None
    _client: Client

    def _normalise(self, targets: Any) -> tuple[EngineId, ...] | None:
        return normalise_candidates(targets, self._client.engine_ids)

    def _engine_ids(self) -> tuple[EngineId, ...]:
        return self._client.engine_ids if self._targets is None else self._targets

    def _require_engines(self) -> None:
        if not self._client.engine_ids:
            raise NoEnginesRegistered()

    def _make_maker(self, flags: Flags) -> CallMaker:
        return CallMaker(self._client.session.functions, flags, candidates=self._targets or ())

    def _call(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncResult:
        check_callable(f)
        self._require_engines()
        call = self._calls().call(f, args, kwargs)
        return self._send(call, (), self._origin(call.options.name, is_single=True))

    def _map(
        self, f: Callable[..., Any], sequences: tuple[Iterable[Any], ...], **flags: Any
    ) -> AsyncMapResult:
        self._require_engines()
        maker, origin, map_flags = self._map_parts(f, flags, allowed=_MAP_FLAGS)
        return start_balanced_map(
            self._client.session,
            maker,
            f,
            sequences,
            origin=origin,
            flags=map_flags,
            engines=len(self._engine_ids()),
            feeders=self._client.feeders,
        )


def normalise_candidates(targets: Any, ids: tuple[EngineId, ...]) -> tuple[EngineId, ...] | None:
    """The engines that a balanced view may use: None is all, one id is a list of one."""
    found = normalise(targets, ids)
    if isinstance(found, str):
        return None
    return found if isinstance(found, tuple) else (found,)
