"""DirectView: calls and names on engines that are named, each with its own live namespace."""

from __future__ import annotations

import itertools
import os
import tokenize
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from enginery import registry
from enginery.client.calls import CallMaker, PreparedCall
from enginery.client.flags import Flags
from enginery.client.importing import SyncImports
from enginery.client.ipython import current_shell
from enginery.client.map_driver import start_direct_map
from enginery.client.parts import check_distribution, cut
from enginery.client.results import AsyncMapResult, AsyncResult
from enginery.client.results.joined_result import JoinedResult
from enginery.client.set_up import kept, name_of_function, name_of_push, name_of_text
from enginery.client.views.targets import Targets, normalise
from enginery.client.views.view import View, call_or_cancel, check_callable
from enginery.errors import NoEnginesRegistered
from enginery.ids import EngineId
from enginery.objects.libraries import use_cloudpickle, use_dill, use_pickle

if TYPE_CHECKING:
    from enginery.client.client import Client

_MAP_KEYWORDS = frozenset({"return_exceptions", "progress"})
_cells = itertools.count(1)


class DirectView(View):
    """Run code on certain engines, and read and write the names of their namespaces.

    Made by indexing a client: ``rc[0]`` gives bare values, ``rc[:]``, ``rc[0, 2]`` lists in the order of
    targets. Methods that take `targets` use them for one call.

    >>> view = rc[:]                                                    # doctest: +SKIP
    >>> view["a"] = 7                                                   # doctest: +SKIP
    >>> view.apply_sync(lambda x: x + a, 1)                             # doctest: +SKIP
    [8, 8]
    """

    _targets: Targets
    _client: Client
    _is_balanced = False

    # ------------------------------------------------------------ code

    def execute(
        self,
        code: str,
        silent: bool = True,
        targets: Any = None,
        block: bool | None = None,
        label: str | None = None,
        keep: bool = False,
        **flags: Any,
    ) -> AsyncResult:
        """Run source text in the engines' namespaces; an AsyncResult, whose `stdout` has what was printed.

        When blocking, it also is the result that is returned, with all its output, after errors have been
        raised. With `silent=False` its value tells what the last expression was worth, and if it fails in a
        cell of IPython, what the cell has queued behind it does not run. With `keep` it is run on engines
        that come later too, see `Client.on_join`.

        >>> rc[:].execute("import os; here = os.getcwd()", block=True)  # doctest: +SKIP
        """
        if not isinstance(code, str):
            raise TypeError(f"execute needs source text, not {code!r} ({type(code).__name__})")
        filename = f"<enginery input {next(_cells)} of {self._client.session.client_id:08x}>"
        given = {"label": label, **flags}
        return self._execute(code, filename, given, silent=silent, targets=targets, block=block, keep=keep)

    def run(
        self,
        filename: str | os.PathLike[str],
        targets: Any = None,
        block: bool | None = None,
        label: str | None = None,
        **flags: Any,
    ) -> AsyncResult:
        """`execute` the text of a file of this machine; raises OSError if it cannot be read."""
        path = os.fspath(filename)
        with tokenize.open(path) as file:  # minds a line that names the encoding
            code = file.read()
        given = {"label": label, **flags}
        return self._execute(f"{code}\n", path, given, silent=True, targets=targets, block=block)

    def _execute(
        self,
        code: str,
        filename: str,
        given: Mapping[str, Any],
        *,
        silent: bool,
        targets: Any,
        block: bool | None,
        keep: bool = False,
    ) -> AsyncResult:
        engines, is_single = self._at(targets)
        flags = self._flags_for(given)
        maker = self._calls(flags)
        origin = self._origin(maker, "execute", is_single=is_single)._replace(source=code)
        cells = self._client.cells
        cell = cells.name(self._client.session.client_id)
        call = maker.execute(code, filename, silent=bool(silent), cell=cell)
        if keep:
            call = kept(call, name_of_text(code), for_all=self._are_all(engines, is_single=is_single))

        def begin() -> AsyncResult:
            result = self._send(call, engines, origin)
            if not silent:
                cells.watch(result.promises, cell)
            return result

        if not (self.block if block is None else block):
            return begin()
        keeps = flags.on_interrupt == "keep"
        result = call_or_cancel(self._client.session, begin, AsyncResult.wait_for_output, keeps=keeps)
        if result.done() or not keeps:
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
        keep: bool = False,
        **flags: Any,
    ) -> Any:
        """Set names in the engines' namespaces; None for each target if blocking, else an AsyncResult.

        With `keep` they are set on engines that come later too: on all of those if the targets are all
        engines, else on those that come under the same ids, see `Client.on_join`. Raises TypeError unless
        `ns` is a dictionary with texts as keys, or naming the value that cannot be sent.
        """
        if not isinstance(ns, Mapping):
            raise TypeError(f"push needs a dictionary of names and values, not {ns!r} ({type(ns).__name__})")
        for name in ns:
            _check_name(name, "push")
        maker = self._calls(self._flags_for({"track": track, "label": label, **flags}))
        call = maker.push(ns)
        if keep:
            engines, is_single = self._at(targets)
            for_all = self._are_all(engines, is_single=is_single)
            call = kept(call, name_of_push(ns), for_all=for_all)
        return self._finish(lambda: self._send_names(maker, "push", call, targets), block, flags)

    def pull(
        self,
        names: str | Iterable[str],
        targets: Any = None,
        block: bool | None = None,
        label: str | None = None,
        **flags: Any,
    ) -> Any:
        """Fetch names, or values of expressions: one per target for a text, a list per target for several.

        Raises the engine's NameError for a name that it does not have.
        """
        is_one = isinstance(names, str)
        if is_one:
            wanted = [str(names)]
        elif isinstance(names, (list, tuple, set, frozenset)):
            wanted = list(names)
        else:
            raise TypeError(f"pull needs a name or a list of names, not {names!r} ({type(names).__name__})")
        for name in wanted:
            _check_name(name, "pull")
        maker = self._calls(self._flags_for({"label": label, **flags}))
        call = maker.pull(wanted, is_single=is_one)
        return self._finish(lambda: self._send_names(maker, "pull", call, targets), block, flags)

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

    def clear(self, targets: Any = None, block: bool | None = None) -> Any:
        """Forget all names of the engines' namespaces, also while they run something."""
        return self._client.clear(self._or_own(targets), block=self.block if block is None else block)

    # ------------------------------------------------------------ parts of sequences

    def scatter(  # noqa: PLR0917 - old code passes them by position
        self,
        key: str,
        seq: Iterable[Any],
        dist: str = "b",
        flatten: bool = False,
        targets: Any = None,
        block: bool | None = None,
        track: bool | None = None,
        label: str | None = None,
        **flags: Any,
    ) -> Any:
        """Cut a sequence into one part for each engine, and set a name to it there.

        `dist` is ``"b"`` for contiguous parts or ``"r"`` for items dealt out in turn; with `flatten`, a part
        of one item is that item. Engines beyond the items get empty parts. Parts of arrays are not copied.
        None for each target if blocking, else an AsyncResult.

        >>> rc[:].scatter("part", range(16), block=True)                # doctest: +SKIP
        [None, None, None, None]
        """
        _check_name(key, "scatter")
        engines, _ = self._at(targets)
        parts = cut(seq, len(engines), dist)
        if flatten:
            parts = [part[0] if len(part) == 1 else part for part in parts]
        maker = self._calls(self._flags_for({"track": track, "label": label, **flags}))
        calls = [maker.push({key: part}) for part in parts]
        origin = self._origin(maker, "scatter", is_single=False)
        result = AsyncResult(self._client.session, origin, engines=engines, tasks=len(engines))
        places = [(engine,) for engine in engines]
        return self._finish(lambda: self._send_each(calls, places, result), block, flags)

    def gather(
        self,
        key: str,
        dist: str = "b",
        targets: Any = None,
        block: bool | None = None,
        label: str | None = None,
        **flags: Any,
    ) -> Any:
        """Fetch a name and join the engines' parts in order: arrays to an array, all else to a list.

        An `AsyncMapResult` unless blocking. `dist` is what the parts were scattered with.
        """
        _check_name(key, "gather")
        check_distribution(dist)
        engines, _ = self._at(targets)
        maker = self._calls(self._flags_for({"label": label, **flags}))
        call = maker.pull([key], is_single=True)
        origin = self._origin(maker, "gather", is_single=False)
        session = self._client.session

        def begin() -> AsyncResult:
            result = JoinedResult(session, origin, parts=len(engines), dist=dist, engines=engines)
            result.on_submitted(
                session.submit(call.options, call.payload, call.blobs, result.promises, engines)
            )
            return result

        return self._finish(begin, block, flags)

    # ------------------------------------------------------------ modules and picklers

    def sync_imports(self, local: bool = True, quiet: bool = False) -> SyncImports:
        """Import on the engines what the statements of a `with` block import here.

        ``as`` and ``from`` mean there what they mean here. With `local=False` the engines alone import. Each
        statement waits for the engines and raises their ImportError; it is written out unless `quiet`.

        >>> with view.sync_imports():                                   # doctest: +SKIP
        ...     import numpy as np
        importing numpy as np on engine(s)
        """
        return SyncImports(self._import, is_local=local, is_quiet=quiet)

    @property
    def importer(self) -> SyncImports:
        """The same as ``sync_imports()``."""
        return self.sync_imports()

    def _import(self, statement: str) -> None:
        _ = self.execute(statement, block=True)

    def use_dill(self) -> Any:
        """Have dill pickle functions, here and on the engines; they then carry the data that they name."""
        use_dill()
        return self.apply(use_dill)

    def use_cloudpickle(self) -> Any:
        """Have cloudpickle pickle functions, here and on the engines; they then carry the data they name."""
        use_cloudpickle()
        return self.apply(use_cloudpickle)

    def use_pickle(self) -> Any:
        """Go back to functions that find their data in the engine's namespace, here and on the engines."""
        use_pickle()
        return self.apply(use_pickle)

    def activate(self, suffix: str = "") -> Self:
        """Have ``%px`` in IPython mean this view, or another magic with a `suffix`; returns the view.

        ``%px`` waits if the view's `block` is set, unless ``%pxconfig`` says otherwise.

        >>> rc[0].activate("_first")                                    # doctest: +SKIP
        <DirectView 0>
        """
        if current_shell() is not None:
            registry.find("activate_magics")(self, suffix)
        return self

    # ------------------------------------------------------------ inside

    def _normalise(self, targets: Any) -> Targets:
        return normalise(targets, self._client.engine_ids)

    def _engine_ids(self) -> tuple[EngineId, ...]:
        return self._as_engines(self._targets)

    def _as_engines(self, targets: Targets) -> tuple[EngineId, ...]:
        if isinstance(targets, str):
            return self._client.engine_ids
        return targets if isinstance(targets, tuple) else (targets,)

    def _at(self, targets: Any = None) -> tuple[tuple[EngineId, ...], bool]:
        """The engines of one call, and whether it has a bare value; by default those of the view."""
        found = self._targets if targets is None else self._normalise(targets)
        engines = self._as_engines(found)
        if not engines:
            raise NoEnginesRegistered()
        return engines, isinstance(found, int)

    def _call(
        self,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        flags: Flags | None = None,
    ) -> AsyncResult:
        check_callable(f)
        engines, is_single = self._at()
        maker = self._calls(flags)
        call = maker.call(f, args, kwargs)
        return self._send(call, engines, self._origin(maker, call.options.name, is_single=is_single))

    def call_kept(self, f: Callable[[], Any]) -> AsyncResult:
        """Call a function on all of these engines and on those to come, see `Client.on_join`."""
        check_callable(f)
        engines, _ = self._at()
        maker = self._calls()
        call = maker.call(f, (), {})
        call = kept(call, name_of_function(call), for_all=True)
        return self._send(call, engines, self._origin(maker, call.options.name, is_single=False))

    def _are_all(self, engines: tuple[EngineId, ...], *, is_single: bool) -> bool:
        """Whether a call for these is meant for whatever engines there are."""
        return not is_single and set(engines) >= set(self._client.engine_ids)

    def _map(
        self, f: Callable[..., Any], sequences: tuple[Iterable[Any], ...], flags: dict[str, Any]
    ) -> AsyncMapResult:
        maker, origin, map_flags = self._map_parts(f, flags, allowed=_MAP_KEYWORDS)
        return start_direct_map(
            self._client.session,
            maker,
            f,
            sequences,
            origin=origin,
            flags=map_flags,
            engines=self._at()[0],
        )

    def _parts_of_reduction(self) -> int:
        return len(self._at()[0])

    def _places(self, items: int, chunksize: int | None) -> list[tuple[EngineId, ...]]:
        return [(engine,) for engine in self._at()[0][:items]]

    def _send_names(self, maker: CallMaker, name: str, call: PreparedCall, targets: Any) -> AsyncResult:
        engines, is_single = self._at(targets)
        return self._send(call, engines, self._origin(maker, name, is_single=is_single))


def _check_name(name: Any, what: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{what}: names must be texts, not {name!r} ({type(name).__name__})")
