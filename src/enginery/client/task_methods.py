"""What a client does about tasks that were sent: labels, waiting, results by id, the controller's memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any

from enginery.client.asking import Asker
from enginery.client.cells import Cells
from enginery.client.cluster_status import ClusterStatus, ask_cluster
from enginery.client.contract import TaskSession
from enginery.client.histories import EndedTasks, TaskHistory
from enginery.client.hub import Hub
from enginery.client.labels import Labels
from enginery.client.lookup import Lookup
from enginery.client.memory_report import MemoryReport, ask_memory
from enginery.client.results.async_result import AsyncResult
from enginery.client.results.bars import ProgressBar
from enginery.client.results.map_result import AsyncMapResult
from enginery.client.results.outcome import Outcome
from enginery.client.snapshots import Standing
from enginery.client.task_names import TaskNames
from enginery.errors import UnknownTask
from enginery.ids import EngineId, TaskId, format_task_id, is_task_id, parse_task_id
from enginery.protocol.messages import AskStatus, StatusAnswer


class TaskMethods:
    """The part of a `Client` that is about tasks."""

    block: bool
    _session: TaskSession

    def _set_up_tasks(self, session: Callable[[], TaskSession], asker: Asker, *, history_limit: int) -> None:
        self._asker = asker
        self._labels = Labels()
        self.cells = Cells()
        self._history = TaskHistory(self._session, history_limit)
        self._names = TaskNames(self._session, self._history)
        self._lookup = Lookup(session, asker)
        self._hub = Hub(session, asker, self._lookup, self._history)
        ended = self._lookup.ended
        self._results = EndedTasks("results", self._history, lambda task: ended(task)[1])
        self._metadata = EndedTasks("metadata", self._history, lambda task: ended(task)[0].metadata)

    @property
    def session(self) -> TaskSession:
        """The connection; raises ClientClosed or ForkedClientError if it is of no use here."""
        raise NotImplementedError

    def _engines(self, targets: Any) -> list[EngineId]:
        """The engines that are there now among these targets."""
        raise NotImplementedError

    # ------------------------------------------------------------ labels

    def label(self, label: str) -> AbstractContextManager[None]:
        """Label the calls made in a `with` block, by this thread or asyncio task, that have no other label.

        >>> with rc.label("night run"):                                 # doctest: +SKIP
        ...     view.map_async(simulate, range(1000))
        """
        return self._labels.put(label)

    @property
    def current_label(self) -> str:
        """The label of the `with` block that this is in; empty outside of one."""
        return self._labels.current

    def get_label(self, label: str) -> list[AsyncResult]:
        """Return the results of the calls made under a label, oldest first: of any client, at any later time.

        >>> [ar.get() for ar in rc.get_label("night run")]              # doctest: +SKIP
        """
        return self._hub.labelled(label)

    # ------------------------------------------------------------ what was sent

    @property
    def outstanding(self) -> set[str]:
        """The ids of the tasks of this client that have not ended."""
        return set(map(format_task_id, self._session.outstanding()))

    @property
    def history(self) -> list[str]:
        """The ids of the tasks that this client has sent, oldest first; the last 100,000."""
        return list(map(format_task_id, self._history.tasks()))

    @property
    def history_limit(self) -> int:
        """How many ids `history` has at most."""
        return self._history.limit

    @property
    def results(self) -> MutableMapping[str, Any]:
        """The values of this client's tasks that have ended, by task id; exceptions of those that failed."""
        return self._results

    @property
    def metadata(self) -> MutableMapping[str, Any]:
        """What is known of them, by task id: a `Metadata` for each."""
        return self._metadata

    def remember(self, first: TaskId, count: int) -> None:
        """A view has sent `count` tasks from `first` on."""
        self._history.remember(first, count)

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for tasks; False if that took longer than `timeout` seconds (None or negative: for ever).

        `jobs` is an AsyncResult, any Future, a task id, an index into `history`, or a collection of these;
        by default all that is outstanding.
        """
        is_over = self._is_over(jobs)
        return is_over() or self.session.wait_until(is_over, timeout)

    def wait_interactive(self, jobs: Any = None, interval: float = 1.0, timeout: float | None = -1.0) -> bool:
        """`wait` with a progress bar, which is moved every `interval` seconds."""
        futures, tasks = self._futures_and_tasks(jobs)
        began = time.monotonic()
        deadline = None if timeout is None or timeout < 0 else began + timeout
        total = len(futures) + len(tasks)

        def left() -> int:
            return len(tasks & self._session.outstanding()) + sum(not one.done() for one in futures)

        def standing() -> Standing:
            return Standing(total - left(), total, name="tasks", elapsed_s=time.monotonic() - began)

        with ProgressBar(standing) as bar:
            while left():
                wait_s = interval if deadline is None else min(interval, deadline - time.monotonic())
                if wait_s <= 0:
                    return False
                self.wait([*futures, *map(format_task_id, tasks)], wait_s)
                bar.move()
            return True

    def get_result(
        self, indices_or_msg_ids: Any = None, block: bool | None = None, owner: bool = True
    ) -> AsyncResult:
        """Return the result of tasks named by ids, indices into `history`, or AsyncResults; also of others.

        One id or index gives a bare value, a list of them a list. The default is the last task of this
        client. Tasks of other clients come as an AsyncHubResult, also when those clients have left; one that
        nobody knows fails with UnknownTask, a KeyError. With `block` it is waited for.

        >>> rc.get_result("3fa9c01b-17").get()                          # doctest: +SKIP
        1024
        """
        jobs = -1 if indices_or_msg_ids is None else indices_or_msg_ids
        if isinstance(jobs, AsyncResult) and self._names.is_own(jobs):
            result = jobs
        else:
            result = self._lookup.result(self._names.tasks(jobs), is_single=self._names.is_single(jobs))
            result.owner = bool(owner)
        if self.block if block is None else block:
            result.wait()
        return result

    def replay(self, jobs: Any = None, timeout: float | None = -1) -> list[AsyncResult]:
        """Show what calls have written and displayed, then what comes, with progress, until all have ended.

        This is for whoever was not there: after the notebook's page was reloaded or its kernel restarted.
        `jobs` is a label, or names tasks as for `get_result`; by default all calls of any client that have
        not ended, or if there are none, the last one. Returns their results, also when `timeout` seconds have
        passed before the end. See `AsyncResult.replay`. Raises UnknownTask, a KeyError, for a label that no
        task has.

        >>> (ar,) = ipp.Client().replay()                               # doctest: +SKIP
        simulate:  38%|███▊      | 380/1,000 items [5:12<8:29]
        """
        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        results = self._replayed(jobs)
        for result in results:
            left = -1.0 if deadline is None else max(0.0, deadline - time.monotonic())
            if not result.replay(left):
                break
        return results

    def _replayed(self, jobs: Any) -> list[AsyncResult]:
        if jobs is None:
            return self._hub.recent()
        if isinstance(jobs, str) and not is_task_id(jobs):
            results = self._hub.labelled(jobs)
            if not results:
                raise UnknownTask(f"no task has the label {jobs!r}, and it is no task id")
            return results
        return [self.get_result(jobs, block=False)]

    def output(self, msg_id: Any) -> str:
        """Return what one task has written so far, to both streams; of any client, also while it runs.

        It is named as for `get_result`. Raises UnknownTask, a KeyError, if nobody knows it, ResultDropped if
        its text is no longer kept.

        >>> print(rc.output("3fa9c01b-17"))                             # doctest: +SKIP
        epoch 3 of 10
        """
        tasks = self._names.tasks(msg_id)
        if len(tasks) != 1:
            raise ValueError(f"output is of one task, and {msg_id!r} names {len(tasks)}")
        return self._lookup.output(tasks[0])

    def resubmit(
        self, indices_or_msg_ids: Any = None, metadata: Any = None, block: bool | None = None
    ) -> AsyncResult:
        """Submit tasks again, under new ids and load-balanced; named as for `get_result`, of any client.

        Dependencies are not taken over; `metadata` is ignored. Raises UnknownTask, a KeyError, if one of them
        is not known, or what it needs is no longer kept. With `block` the result is waited for.
        """
        jobs = -1 if indices_or_msg_ids is None else indices_or_msg_ids
        result = self._hub.resubmit(self._names.tasks(jobs), is_single=self._names.is_single(jobs))
        if self.block if block is None else block:
            result.wait()
        return result

    def abort(self, jobs: Any = None, targets: Any = None, block: bool | None = None) -> None:
        """Take tasks out of the queues that have not started, also those of other clients.

        They fail with TaskAborted; tasks that run go on. `jobs` as for `wait`, by default all outstanding;
        with `targets` only those on these engines. With `block` returns when the controller has done it.
        """
        futures, tasks = self._names.sort_out(self.with_maps(self.outstanding) if jobs is None else jobs)
        unsent = []  # maps that have items which were not sent yet
        for future in futures:
            if not isinstance(future, AsyncResult):
                raise TypeError(f"{future!r} is not a task of this client")
            tasks.update(future.task_ids)
            if isinstance(future, AsyncMapResult) and not future.done():
                unsent.append(future)
        if targets is not None:
            tasks &= self._hub.tasks_on(self._engines(targets))
        else:
            for map_result in unsent:
                map_result.abort()
        if tasks:
            self.session.withdraw(sorted(tasks))
        if self.block if block is None else block:
            self._asker.ask(AskStatus, StatusAnswer)  # the answer comes behind what was said before

    def with_maps(self, msg_ids: Iterable[str]) -> list[str | AsyncResult]:
        """These tasks, and the maps that they are parts of: those may have items that were not sent yet."""
        ids = list(msg_ids)
        promises = [self._session.promise(parse_task_id(msg_id)) for msg_id in ids]
        owners = {promise.owner for promise in promises if isinstance(promise, Outcome)}
        return [*ids, *(owner for owner in owners if isinstance(owner, AsyncMapResult))]

    def _is_over(self, jobs: Any) -> Any:
        futures, tasks = self._futures_and_tasks(jobs)
        for future in futures:
            if isinstance(future, AsyncResult):
                future.wait(0)  # a map over an iterator reads on when it is waited for
        session, in_turn, over = self._session, sorted(tasks), 0

        def is_over() -> bool:
            nonlocal over  # of those in front; several threads may look, and what has ended stays so
            place = over
            while place < len(in_turn) and not session.is_outstanding(in_turn[place]):
                place += 1
            over = place
            return place == len(in_turn) and all(future.done() for future in futures)

        return is_over

    def _futures_and_tasks(self, jobs: Any) -> tuple[list[Future[Any]], set[TaskId]]:
        """What there is to wait for; tasks of others are followed."""
        futures, tasks = self._names.sort_out(jobs)
        if jobs is None:
            tasks = self._session.outstanding()
        others = self._names.of_others(tasks)
        if others:
            futures.append(self._lookup.result(sorted(others), is_single=False))
        return futures, tasks - others

    # ------------------------------------------------------------ the whole

    def status(self) -> ClusterStatus:
        """Return the cluster at a glance: engines with what they run and use, tasks by state, last errors.

        It prints as a table, shows as one in notebooks, and `to_dict` gives plain values. A host that is
        silent for a second has no numbers in it. Raises ClusterNotResponding.

        >>> rc.status().tasks["running"]                                # doctest: +SKIP
        4
        """
        return ask_cluster(self._asker)

    # ------------------------------------------------------------ memory

    def memory(self) -> MemoryReport:
        """Return what the controller, each engine and this process hold, busy or not.

        The report prints as a table; `to_dict` gives plain values, in bytes.

        >>> rc.memory()["engine 0"].objects[0]                          # doctest: +SKIP
        LargeObject(name='table', type='ndarray', size_bytes=800000000)
        """
        return ask_memory(self.session, self._asker, ())

    def free(self, targets: Any = None) -> MemoryReport:
        """Have memory given back that is kept because it may be of use; returns what is held then.

        That is shared memory which waits to be used again; the functions and constants that engines keep,
        which come again when they are needed; and large arguments and results of tasks that have ended, which
        the controller keeps for `get_result` and `resubmit`. Names in the engines' namespaces stay, see
        `clear`. An engine that is running a task keeps its functions and constants. `targets` are the
        engines, all of them by default.
        """
        return ask_memory(self.session, self._asker, self._engines(targets), free=True)

    # ------------------------------------------------------------ the controller's memory

    def result_status(self, msg_ids: Any, status_only: bool = True) -> dict[str, Any]:
        """Return which tasks are ``pending`` and which ``completed``: a dictionary of two lists of ids.

        With `status_only=False` it has the values of the completed ones as well, by id; their errors are
        raised. Raises UnknownTask, a KeyError, for a task that nobody knows.
        """
        return self._hub.result_status(self._names.tasks(msg_ids), status_only=status_only)

    def queue_status(self, targets: Any = "all", verbose: bool = False) -> dict[Any, Any]:
        """Return how much is queued and done on each engine.

        ``{id: {"queue": n, "completed": n, "tasks": n}, ..., "unassigned": n}``: `queue` are unfinished
        direct tasks, `tasks` balanced ones that the engine was given, `unassigned` what no engine was given
        yet. With `verbose` lists of ids in place of the numbers. For a single engine id only its own
        dictionary.
        """
        engines = self._engines(targets)
        status = self._hub.queue_status(engines, verbose=bool(verbose))
        return status[int(engines[0])] if hasattr(targets, "__index__") else status

    def purge_local_results(self, jobs: Any = (), targets: Any = ()) -> None:
        """Forget results here: of tasks, of all tasks of engines, or ``"all"``.

        Raises RuntimeError if one of the tasks has not ended, ValueError if nothing is named.
        """
        self._hub.purge_local(*self._names.to_purge(jobs, targets))

    def purge_hub_results(self, jobs: Any = (), targets: Any = ()) -> None:
        """Have the controller forget results: of tasks, of all tasks of engines, or ``"all"``.

        Engines that have left may be named. Raises PurgeRefused (an IndexError and a KeyError) for a task
        that has not ended or is not known, ValueError if nothing is named.
        """
        self._hub.purge(*self._names.to_purge(jobs, targets))

    def purge_results(self, jobs: Any = (), targets: Any = ()) -> None:
        """Forget results here and at the controller; errors are those of both."""
        self.purge_local_results(jobs, targets)
        self.purge_hub_results(jobs, targets)

    def purge_everything(self) -> None:
        """Forget all results here and at the controller, and the history. Raises RuntimeError as above."""
        self.purge_results("all")
        self._history.clear()

    def hub_history(self) -> list[str]:
        """Return the ids of all tasks of all clients that the controller remembers, by submission."""
        return self._hub.history()

    def db_query(self, query: Mapping[str, Any], keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return what the controller remembers of tasks, as dictionaries with these keys.

        The query is ``{key: value}`` or ``{key: {operator: value, ...}}``; all of it must hold. The operators
        are `$eq $ne $lt $lte $gt $gte $in $nin $glob $all $mod $exists`. Times are aware datetimes. Without
        `keys` records have all but ``buffers`` and ``result_buffers``; they always have ``msg_id``.

        Raises KeyError for unknown keys and operators, ValueError for values that cannot be compared with.

        >>> rc.db_query({"label": "night", "completed": {"$gt": yesterday}}, ["status", "stdout"])
        ...                                                             # doctest: +SKIP
        """
        return self._hub.query(query, keys)
