"""The engines as this client last heard of them, and who wants to hear of changes.

Not thread-safe: the session holds its lock, but for the listeners, who are called without it.
"""

from __future__ import annotations

from collections.abc import Sequence

from enginery.client.contract import EngineListener
from enginery.ids import EngineId
from enginery.protocol.messages import EngineInfo, EngineLeft, EnginesChanged


class KnownEngines:
    """What the welcome said, and all changes since."""

    def __init__(self) -> None:
        self._engines: dict[EngineId, EngineInfo] = {}
        self._listeners: list[EngineListener] = []

    def __repr__(self) -> str:
        return f"<KnownEngines {sorted(self._engines)}>"

    @property
    def listeners(self) -> list[EngineListener]:
        return list(self._listeners)

    def add_listener(self, listener: EngineListener) -> None:
        self._listeners.append(listener)

    def in_order(self) -> dict[EngineId, EngineInfo]:
        """All of them, ascending ids."""
        return dict(sorted(self._engines.items()))

    def on_changed(self, record: EnginesChanged) -> None:
        for left in record.left:
            known = self._engines.get(left.engine)
            if known is not None and known.key == left.key:
                del self._engines[left.engine]
        for joined in record.joined:
            self._engines[joined.engine] = joined

    def on_welcome(self, engines: Sequence[EngineInfo]) -> EnginesChanged | None:
        """These are there now. Returns what has changed while this client was away."""
        known = {info.key: info for info in self._engines.values()}
        present = {info.key for info in engines}
        joined = [info for info in engines if info.key not in known]
        left = [
            EngineLeft(info.engine, key, "it left while this client was away")
            for key, info in known.items()
            if key not in present
        ]
        self._engines = {info.engine: info for info in engines}
        return EnginesChanged(joined, left) if joined or left else None
