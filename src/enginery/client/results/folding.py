"""What several engines show alike is shown once, with the list of the engines.

An *item* is a kind (``"stdout"``, ``"stderr"``, ``"outputs"``, ``"result"``) and what is shown: a text, a
list of displays, an `ExecuteReply`. Items of engines are alike if all that they show is equal, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from enginery.client.results.execute_reply import ExecuteReply
from enginery.errors import spans

LIVE_KINDS = ("stdout", "stderr", "outputs")

Item = tuple[str, Any]


class Share(NamedTuple):
    """What one engine shows."""

    engine: int | None
    items: Sequence[Item]


def fold(shares: Iterable[Share]) -> list[list[Share]]:
    """Put together the engines that show the same, in the order of the first of each; without empty ones.

    >>> hi, ho = [("stdout", "hi")], [("stdout", "ho")]
    >>> [[share.engine for share in alike] for alike in fold([Share(0, hi), Share(1, ho), Share(2, hi)])]
    [[0, 2], [1]]
    """
    groups: list[tuple[list[Any], list[Share]]] = []
    for share in shares:
        if not share.items:
            continue
        looks = [(kind, _look_of(content)) for kind, content in share.items]
        for known, alike in groups:
            if known == looks:
                alike.append(share)
                break
        else:
            groups.append((looks, [share]))
    return [alike for _, alike in groups]


def _look_of(content: Any) -> Any:
    return content.data if isinstance(content, ExecuteReply) else content


def engine_list(engines: Iterable[int | None]) -> str:
    """Engines in a tag: ``0-3,7``; empty if none is known."""
    return spans(sorted({engine for engine in engines if engine is not None})).replace(" ", "")


def prompt_of(replies: Sequence[ExecuteReply]) -> str:
    """The prompt of a value that engines share: ``Out[0-3:1]:``; ``Out[0:5;1-3:1]:`` if they count apart."""
    counts: dict[int, list[int | None]] = {}
    for reply in replies:
        counts.setdefault(reply.execution_count, []).append(reply["engine_id"])
    return f"Out[{';'.join(f'{engine_list(engines)}:{count}' for count, engines in counts.items())}]:"


class Held:
    """Keeps what engines have shown until it is time to fold it."""

    def __init__(self) -> None:
        self._pieces: dict[str, dict[int | None, list[Any]]] = {kind: {} for kind in LIVE_KINDS}

    def __repr__(self) -> str:
        return f"<Held of {len({engine for kept in self._pieces.values() for engine in kept})} engines>"

    def __bool__(self) -> bool:
        return any(self._pieces.values())

    def add(self, kind: str, engine: int | None, piece: Any) -> None:
        """Keep whole lines, or one display."""
        self._pieces[kind].setdefault(engine, []).append(piece)

    def flush(self, show: Callable[[Sequence[Share]], object]) -> None:
        """Show what is kept, of each kind and then in the order of engines."""
        for kind in LIVE_KINDS:
            kept, self._pieces[kind] = self._pieces[kind], {}
            shares = [
                Share(engine, [(kind, pieces if kind == "outputs" else "".join(pieces))])
                for engine, pieces in sorted(kept.items(), key=lambda pair: (pair[0] is None, pair[0] or 0))
            ]
            for alike in fold(shares):
                show(alike)
