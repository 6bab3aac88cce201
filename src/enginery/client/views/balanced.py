"""LoadBalancedView: calls on whichever engine is free."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from enginery import registry
from enginery.client.calls import CallMaker
from enginery.client.dependencies import Dependency
from enginery.client.flags import Flags
from enginery.client.map_driver import start_balanced_map
from enginery.client.partition import CHUNKS_PER_ENGINE
from enginery.client.results import AsyncMapResult, AsyncResult
from enginery.client.views.attributes import FlagAttribute
from enginery.client.views.targets import normalise
from enginery.client.views.view import View, check_callable
from enginery.errors import NoEnginesRegistered
from enginery.ids import EngineId

if TYPE_CHECKING:
    from enginery.client.client import Client

_MAP_KEYWORDS = frozenset({"return_exceptions", "progress", "chunksize", "ordered", "buffersize"})


class LoadBalancedView(View):
    """Run functions on whichever engine is free, each call on exactly one.

    `targets` restricts the choice; None is all engines, also those that come later. Dependencies are ids of
    tasks, AsyncResults, a `Dependency`, its dictionary, or lists and sets of these.

    >>> view = rc.load_balanced_view()                                  # doctest: +SKIP
    >>> view.map_sync(abs, [-1, 2, -3])                                 # doctest: +SKIP
    [1, 2, 3]
    """

    after = FlagAttribute[Dependency | None]("Tasks after which calls run.")
    follow = FlagAttribute[Dependency | None]("Tasks on whose engines calls run.")
    timeout = FlagAttribute[float | None](
        "Seconds that a call waits for `after` and `follow` before it fails with DependencyTimeout; None."
    )

    _targets: tuple[EngineId, ...] | None
    _client: Client
    _is_balanced = True

    def register_joblib_backend(self, name: str = "enginery", make_default: bool = False) -> None:
        """Make this view known to joblib as a backend: its engines, its flags.

        With `make_default` it is what `joblib.Parallel` uses without being told. Raises ImportError where
        joblib is not installed.

        >>> view.register_joblib_backend("gpu")                         # doctest: +SKIP
        >>> joblib.Parallel(backend="gpu")(calls)                       # doctest: +SKIP
        """
        registry.find("register_view_with_joblib")(self, name, make_default)

    def _normalise(self, targets: Any) -> tuple[EngineId, ...] | None:
        return normalise_candidates(targets, self._client.engine_ids)

    def _engine_ids(self) -> tuple[EngineId, ...]:
        return self._client.engine_ids if self._targets is None else self._targets

    def _require_engines(self) -> None:
        if not self._client.engine_ids:
            raise NoEnginesRegistered()

    def _new_maker(self, flags: Flags) -> CallMaker:
        return CallMaker(self._client.session.functions, flags, candidates=self._targets or ())

    def _call(
        self,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        flags: Flags | None = None,
    ) -> AsyncResult:
        check_callable(f)
        self._require_engines()
        maker = self._calls(flags)
        call = maker.call(f, args, kwargs)
        return self._send(call, (), self._origin(maker, call.options.name, is_single=True))

    def _map(
        self, f: Callable[..., Any], sequences: tuple[Iterable[Any], ...], flags: dict[str, Any]
    ) -> AsyncMapResult:
        self._require_engines()
        maker, origin, map_flags = self._map_parts(f, flags, allowed=_MAP_KEYWORDS)
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

    def _parts_of_reduction(self) -> int:
        return max(1, CHUNKS_PER_ENGINE * len(self._engine_ids()))

    def _places(self, items: int, chunksize: int | None) -> list[tuple[EngineId, ...]]:
        self._require_engines()
        return [()] * math.ceil(items / (chunksize or 1))


def normalise_candidates(targets: Any, ids: tuple[EngineId, ...]) -> tuple[EngineId, ...] | None:
    """The engines that a balanced view may use: None is all, one id is a list of one."""
    found = normalise(targets, ids)
    if isinstance(found, str):
        return None
    return found if isinstance(found, tuple) else (found,)
