"""A place in a notebook's output that can be changed later, with nothing installed in the page."""

from __future__ import annotations

import uuid
from typing import Any

from enginery.client.snapshots import Snapshot
from enginery.frontends.faces.cards import Card, card_of
from enginery.frontends.faces.html import card_html
from enginery.frontends.faces.text import card_text


def bundle_of(snapshot: Snapshot) -> dict[str, str]:
    """What is shown of a snapshot by MIME type, as IPython displays it."""
    return _bundle(card_of(snapshot))


def _bundle(card: Card) -> dict[str, str]:
    return {"text/plain": card_text(card), "text/html": card_html(card)}


class Place:
    """Shows one card after the other, all of them where the first one is."""

    def __init__(self) -> None:
        self.display_id = f"enginery-{uuid.uuid4().hex}"
        self._shown: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"<Place {self.display_id}>"

    def show(self, card: Card) -> None:
        """Show it; what is there already is not shown again. Any thread may do so."""
        bundle = _bundle(card)
        if bundle != self._shown:
            self._publish(bundle, update=self._shown is not None)
            self._shown = bundle

    def show_anew(self, card: Card) -> None:
        """Show it in the present cell as well; both change from now on."""
        self._shown = _bundle(card)
        self._publish(self._shown, update=False)

    def _publish(self, bundle: dict[str, str], *, update: bool) -> None:
        from IPython.display import display

        show: Any = display
        show(bundle, raw=True, display_id=self.display_id, update=update)
