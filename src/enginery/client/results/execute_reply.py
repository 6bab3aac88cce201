"""ExecuteReply: what executed text was worth, shown like the last line of a cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from enginery.client.results.metadata import METADATA_KEYS, Metadata

_SHOWN = 32


class ExecuteReply:
    """Hold what `view.execute` came to on one engine: with `silent=False` also the value of the last line.

    `data` is by MIME type, as IPython displays it. What is known of the task is in `metadata`, and each of
    its keys an attribute and an item: ``reply.stdout``, ``reply["engine_id"]``.

    >>> view.execute("1 + 1", silent=False).get()                       # doctest: +SKIP
    <ExecuteReply[1]: 2>
    """

    def __init__(self, content: Mapping[str, Any], *, describe: Callable[[], Metadata]) -> None:
        self._describe = describe
        self.execution_count: int = content["execution_count"]
        """The number of the execution on its engine; 0 for a silent one."""
        self.data: dict[str, Any] = dict(content["data"])
        self._about: dict[str, Any] = dict(content["metadata"])

    @property
    def metadata(self) -> Metadata:
        """What is known of the task."""
        return self._describe()

    @property
    def source(self) -> str:
        """The text that was executed."""
        return str(self._describe()["execute_input"])

    def __getitem__(self, key: str) -> Any:
        return self._describe()[key]

    def __getattr__(self, name: str) -> Any:
        if name in METADATA_KEYS:
            return self._describe()[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        text = str(self.data.get("text/plain", ""))
        if len(text) > _SHOWN:
            text = text[: _SHOWN - 1] + "…"
        return f"<ExecuteReply[{self.execution_count}]: {text}>"

    @property
    def prompt(self) -> str:
        """``Out[0:1]:``, with the engine and the number of the execution."""
        return f"Out[{self['engine_id']}:{self.execution_count}]:"

    def as_text(self, prompt: str | None = None) -> str:
        """The prompt, its own by default, and the value; empty if the text has no value."""
        text = str(self.data.get("text/plain", ""))
        separator = "\n" if "\n" in text else " "
        return f"{self.prompt if prompt is None else prompt}{separator}{text}" if text else ""

    # ------------------------------------------------------------ for IPython

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(self.as_text() or repr(self))

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        # The plain text is left to `_repr_pretty_`, which says where it comes from.
        return {kind: value for kind, value in self.data.items() if kind != "text/plain"}, self._about

    def _repr_html_(self) -> Any:
        return self._of("text/html")

    def _repr_markdown_(self) -> Any:
        return self._of("text/markdown")

    def _repr_latex_(self) -> Any:
        return self._of("text/latex")

    def _repr_json_(self) -> Any:
        return self._of("application/json")

    def _repr_javascript_(self) -> Any:
        return self._of("application/javascript")

    def _repr_svg_(self) -> Any:
        return self._of("image/svg+xml")

    def _repr_png_(self) -> Any:
        return self._of("image/png")

    def _repr_jpeg_(self) -> Any:
        return self._of("image/jpeg")

    def _of(self, kind: str) -> Any:
        """One form of the value, with its metadata if it has some; None if there is no such form."""
        value = self.data.get(kind)
        about = self._about.get(kind)
        return (value, about) if value is not None and about else value
