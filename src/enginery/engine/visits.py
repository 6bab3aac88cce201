"""Cells of front-ends that are attached to this engine, run in its main thread between tasks.

A cell is nobody's task: its text goes to its front-end, also what its threads print when it has ended, and
what is written past Python meanwhile goes to the engine's log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from enginery.engine.interrupts import Interrupts, StopRunning
from enginery.engine.output import NO_TASK
from enginery.engine.past_python import PastPython
from enginery.engine.runner import Runner
from enginery.engine.threads import TaskThreads
from enginery.engine.user_code import call
from enginery.objects.failures import format_remote_traceback
from enginery.transport.status_page import StatusPage

if TYPE_CHECKING:
    from enginery.engine.kernel import Cell, CellEnd, Kernel

VISIT = NO_TASK
"""In the place of a task's id; the number of the cell is in that of the attempt."""


class Visits:
    """The kernel of this engine, if front-ends may attach to it, and the cells that wait."""

    def __init__(
        self,
        threads: TaskThreads,
        interrupts: Interrupts,
        lock: AbstractContextManager[Any],
        wake: Callable[[], None],
        past: PastPython | None,
        page: StatusPage | None,
    ) -> None:
        self._threads = threads
        self._interrupts = interrupts
        self._lock = lock  # around what is interrupted, and ends
        self._wake = wake
        self._past = past
        self._page = page
        self._cells: deque[Cell] = deque()
        self._running: Cell | None = None
        self._runner: Runner | None = None
        self._kernel: Kernel | None = None

    def __repr__(self) -> str:
        return f"<Visits: {len(self._cells)} cells wait>"

    def open(self, runner: Runner, name: str, ip: str, ports: dict[str, int]) -> Kernel:
        """The kernel; started, with IPython's shell, by the first call."""
        if self._kernel is None:
            self._runner = runner
            runner.shell()
            try:
                from enginery.engine.kernel import Kernel
            except ModuleNotFoundError as error:
                needed = "bind_kernel needs jupyter_client where the engine runs: pip install jupyter_client"
                raise ModuleNotFoundError(needed, name=error.name) from error
            kernel = Kernel(self, name=name, ip=ip, ports=ports)
            kernel.start()
            self._kernel = kernel
        return self._kernel

    def close(self) -> None:
        """Front-ends are left alone. Repeating it does nothing."""
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            kernel.close()

    # ------------------------------------------------------------ for the kernel's thread

    def visit(self, cell: Cell) -> None:
        self._cells.append(cell)
        self._wake()

    def interrupt_visit(self) -> None:
        with self._lock:
            if self._running is not None:
                self._interrupts.interrupt((VISIT, self._running.number))
        self._interrupts.wake()

    def shell(self) -> Any:
        assert self._runner is not None, "it came with the kernel"
        return self._runner.shell()

    # ------------------------------------------------------------ for what cells print and display

    def write(self, number: int, stream: str, text: str) -> None:
        if self._kernel is not None:
            self._kernel.write(number, stream, text)

    def show(self, number: int, kind: str, content: bytes) -> None:
        if self._kernel is not None:
            self._kernel.show(number, kind, content)

    # ------------------------------------------------------------ the main thread

    def run_next(self) -> bool:
        """Run the next cell. False if there is none."""
        if not self._cells or self._kernel is None:
            return False
        cell, kernel, runner = self._cells.popleft(), self._kernel, self._runner
        assert runner is not None
        attempt = VISIT, cell.number
        if self._page is not None:
            self._page.start(VISIT)
        run = self._threads.begin(*attempt)
        self._interrupts.begin(attempt)
        self._running = cell
        try:
            kernel.on_begun(cell, runner.shell().execution_count)
            end = _run(runner, cell)
        finally:
            with self._lock:
                self._running = None
                self._interrupts.end()
            if self._past is not None:
                self._past.look(run, is_over=True)
            self._threads.end()
            if self._page is not None:
                self._page.finish()
        kernel.on_ended(cell, end)
        return True


def _run(runner: Runner, cell: Cell) -> CellEnd:
    from enginery.engine.kernel import CellEnd

    shell = runner.shell()
    count = shell.execution_count
    try:
        reply = shell.run_text(
            cell.code, f"<cell {cell.number} of a front-end>", silent=cell.silent or not cell.store_history
        )
        expressions = call(shell.user_expressions, (cell.expressions,)) if cell.expressions else {}
    except StopRunning:
        raise
    except BaseException as error:  # noqa: BLE001 - a cell may raise anything and ends no engine
        name, text = type(error).__name__, format_remote_traceback(error)
        return CellEnd(count, failure=(name, _last_line(error), text.split("\n")))
    if reply is None:
        return CellEnd(count, expressions=expressions)
    return CellEnd(count, reply["data"], reply["metadata"], expressions)


def _last_line(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - `__str__` is the user's
        return ""
