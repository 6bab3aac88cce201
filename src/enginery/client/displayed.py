"""What shows its state in IPython: as text in a terminal, as HTML in a notebook, and there up to date.

Light: nothing is imported before something is displayed. How it looks is for `frontends`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enginery import registry
from enginery.client.ipython import shows_html

if TYPE_CHECKING:
    from enginery.client.contract import TaskSession
    from enginery.client.snapshots import Snapshot


class Displayed:
    """Base of clusters, clients, views and results."""

    _live: Any = None  # what a notebook shows of it and is kept up to date

    def _snapshot(self, *, may_wait: bool) -> Snapshot:
        """What there is to see now; if it `may_wait`, then half a second for the controller at most."""
        raise NotImplementedError

    def _live_session(self) -> TaskSession | None:
        """The session whose news may change what there is to see; None if nothing will."""
        raise NotImplementedError

    def _is_moving(self) -> bool:
        """Whether what there is to see may change without news."""
        return True

    # ------------------------------------------------------------ for IPython

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, str], dict[str, Any]]:
        return registry.find("bundle_of")(self._snapshot(may_wait=True)), {}

    def _repr_html_(self) -> str:
        return str(self._repr_mimebundle_()[0]["text/html"])

    def _ipython_display_(self) -> None:
        """In a notebook, show it in a place that is kept up to date while it is waited for."""
        if not shows_html() or self._live_session() is None:
            raise NotImplementedError  # IPython then shows it like anything else
        if self._live is None:
            self._live = registry.find("LiveCard")(self)
        self._live.show()
