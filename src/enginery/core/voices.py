"""What tasks say through their engines, and what is written past those, put in one order.

Theory
======

A task's text, displays and values come from its engine, numbered in their order. What its C code and the
processes that it starts write comes from the engine's supervisor, on another connection. Where the one
follows upon the other the engine makes a *mark*: it goes into the pipe behind what was written there, and
among the numbered sayings, as one of them. So whatever is first at the controller waits for the other:

* a mark among the sayings, and what follows it, waits until the supervisor has read as far; then the text up
  to it takes the mark's number;
* text from a pipe waits a moment for what the task had said before it, because that gathers in the engine
  for longer than the text in the supervisor. If no mark comes, because the task runs on, it is passed on
  without a number.

Each wait ends by itself: the other may be lost with its connection. Tasks that write nothing past Python, by
far the most, pass through here without being noted.

When an engine has died, its last words come with the report of its end. Those that had left it before are
known by their numbers.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from enginery.core.watching import Recorded
from enginery.ids import EngineId, EngineKey, HostKey, TaskId
from enginery.protocol.messages import LastWord, Output, ProcessText

TEXT_WAIT_S = 0.15
"""More than `GATHER_S` of an engine: what was printed before is here by then."""
MARK_WAIT_S = 2.0
OPEN_TASKS_KEPT = 1000
DEPARTED_KEPT = 100

_Voice = tuple[EngineId, TaskId]


class VoicesOutbox(Protocol):
    def pass_on(self, saying: Recorded) -> None:
        """Tell whoever listens, and remember it."""


class Place(NamedTuple):
    """A mark in the pipe of a stream."""

    stream: str
    attempt: int
    number: int


class Departed(NamedTuple):
    """An engine that has left, and whose supervisor may still have something it wrote."""

    engine: EngineId
    host: HostKey
    tasks: frozenset[TaskId]


class Voices:
    """All tasks of all engines."""

    def __init__(self) -> None:
        self._open: OrderedDict[_Voice, _Open] = OrderedDict()
        # Numbers of the last of an engine's words that have come: as sayings, or (at least said to come) with
        # results.
        self._written: dict[EngineId, int] = {}
        self._accounted: dict[EngineId, int] = {}
        self._texts: dict[EngineId, int] = {}  # number of the last text from its pipes
        self._departed: OrderedDict[EngineKey, Departed] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Voices, {len(self._open)} tasks open>"

    # ------------------------------------------------------------ facts

    def on_said(
        self,
        engine: EngineId,
        saying: Recorded,
        *,
        mark: Place | None = None,
        written: int = 0,
        now: float,
        outbox: VoicesOutbox,
    ) -> None:
        """An engine says something of a task. With a mark it is an `Output` without text."""
        if written > self._written.get(engine, 0):
            self._written[engine] = written
        voice = engine, saying.task
        if mark is None and voice not in self._open:
            outbox.pass_on(saying)
            return
        task = self._opened(voice, now, outbox)
        task.sayings.append((saying, mark))
        self._advance(voice, task, now, outbox)

    def on_result(self, engine: EngineId, written: int) -> None:
        """Everything up to this number that the task wrote has come with its result, or is to come."""
        if written > self._accounted.get(engine, 0):
            self._accounted[engine] = written

    def on_text(self, engine: EngineId, text: ProcessText, *, now: float, outbox: VoicesOutbox) -> None:
        """A supervisor has read something of a task that this engine has had."""
        last = self._texts.get(engine, 0)
        if text.number <= last:
            return
        self._texts[engine] = text.number
        if 0 < last < text.number - 1:
            self._on_texts_lost(engine, text.task, text.number - 1 - last, now, outbox)
        voice = engine, text.task
        task = self._opened(voice, now, outbox)
        if text.text:
            task.texts.append(_output(engine, text))
        if text.mark:
            task.texts.append(Place(text.stream, text.attempt, text.mark))
        self._advance(voice, task, now, outbox)

    def on_last_words(
        self,
        engine: EngineId,
        words: Iterable[LastWord],
        *,
        is_wanted: Callable[[LastWord], bool],
        now: float,
        outbox: VoicesOutbox,
    ) -> None:
        """The engine is dead. These words are wanted, if they have not come before: they still count."""
        known = self._written.get(engine, 0)
        accounted = max(known, self._accounted.get(engine, 0))
        for word in words:
            if word.number > known and is_wanted(word):
                if word.number > accounted + 1:
                    lost = _lost_words(word.number - accounted - 1)
                    self.on_said(engine, _uncounted(engine, word, lost), now=now, outbox=outbox)
                mark = Place(word.stream, word.attempt, word.mark) if word.mark else None
                self.on_said(engine, _uncounted(engine, word, word.text), mark=mark, now=now, outbox=outbox)
            accounted = max(word.number, accounted)

    def on_engine_gone(
        self, engine: EngineId, key: EngineKey, departed: Departed, *, outbox: VoicesOutbox
    ) -> None:
        """Nothing more comes from it; from its supervisor something may."""
        for voice in [voice for voice in self._open if voice[0] == engine]:
            self._settle(voice, outbox)
        for numbers in (self._written, self._accounted, self._texts):
            numbers.pop(engine, None)
        self._departed[key] = departed
        if len(self._departed) > DEPARTED_KEPT:
            self._departed.popitem(last=False)

    def on_late_text(self, host: HostKey, text: ProcessText, *, outbox: VoicesOutbox) -> None:
        """A supervisor has read something that an engine wrote which is not there any more."""
        departed = self._departed.get(text.key)
        if departed is not None and departed.host == host and text.task in departed.tasks and text.text:
            outbox.pass_on(_output(departed.engine, text))

    # ------------------------------------------------------------ time

    def next_deadline(self) -> float | None:
        return min((task.due for task in self._open.values() if task.due is not None), default=None)

    def on_tick(self, *, now: float, outbox: VoicesOutbox) -> None:
        due = [voice for voice, task in self._open.items() if task.due is not None and task.due <= now]
        for voice in due:
            task = self._open[voice]
            if task.sayings:
                task.skip_mark(outbox)
            else:
                task.say_texts(outbox)
            task.due = None
            self._advance(voice, task, now, outbox)

    def check(self) -> None:
        assert len(self._open) <= OPEN_TASKS_KEPT
        for task in self._open.values():
            task.check()

    # ------------------------------------------------------------ inside

    def _opened(self, voice: _Voice, now: float, outbox: VoicesOutbox) -> _Open:
        task = self._open.get(voice)
        if task is None:
            if len(self._open) >= OPEN_TASKS_KEPT:
                self._settle(next(iter(self._open)), outbox)
            task = self._open[voice] = _Open()
        return task

    def _advance(self, voice: _Voice, task: _Open, now: float, outbox: VoicesOutbox) -> None:
        """Say what need not wait, and decide how long the rest does."""
        while task.sayings:
            saying, mark = task.sayings[0]
            if mark is not None and not task.has_reached(mark):
                break
            task.sayings.popleft()
            if mark is None:
                outbox.pass_on(saying)
            else:
                task.say_up_to(mark, saying, outbox)
        if not task.sayings and not task.texts:
            del self._open[voice]
            return
        wait_s = MARK_WAIT_S if task.sayings else TEXT_WAIT_S if task.has_text else None
        if wait_s != task.wait_s:
            task.wait_s, task.due = wait_s, None
        if task.due is None and wait_s is not None:
            task.due = now + wait_s

    def _settle(self, voice: _Voice, outbox: VoicesOutbox) -> None:
        """Say all that waits."""
        task = self._open.pop(voice)
        while task.sayings:
            saying, mark = task.sayings[0]
            if mark is not None and not task.has_reached(mark):
                task.skip_mark(outbox)
                continue
            task.sayings.popleft()
            if mark is None:
                outbox.pass_on(saying)
            else:
                task.say_up_to(mark, saying, outbox)
        task.say_texts(outbox)

    def _on_texts_lost(
        self, engine: EngineId, task: TaskId, count: int, now: float, outbox: VoicesOutbox
    ) -> None:
        """With a connection of the supervisor; marks may be among them."""
        for voice in [voice for voice in self._open if voice[0] == engine]:
            self._settle(voice, outbox)
        pieces = "1 piece" if count == 1 else f"{count} pieces"
        sentence = f"[{pieces} of what was written past Python did not arrive here]\n"
        outbox.pass_on(Output(task, engine, "stderr", sentence))


class _Open:
    """A task of which something waits."""

    __slots__ = ("due", "sayings", "texts", "wait_s")

    def __init__(self) -> None:
        self.sayings: deque[tuple[Recorded, Place | None]] = deque()  # the first one waits for its mark
        self.texts: deque[Output | Place] = deque()  # from pipes, with the marks that were read
        self.wait_s: float | None = None
        self.due: float | None = None

    def __repr__(self) -> str:
        return f"<_Open: {len(self.sayings)} sayings, {len(self.texts)} texts and marks>"

    @property
    def has_text(self) -> bool:
        return any(type(entry) is Output for entry in self.texts)

    def has_reached(self, mark: Place) -> bool:
        return any(_is_at(entry, mark) for entry in self.texts)

    def say_up_to(self, mark: Place, saying: Recorded, outbox: VoicesOutbox) -> None:
        """Say what was read of the mark's stream up to it; the last of it is the saying's text."""
        texts = list(self._take_up_to(mark))
        last = texts.pop() if texts else None
        for text in texts:
            outbox.pass_on(text)
        assert isinstance(saying, Output)
        if last is not None:
            saying.text = last.text
        outbox.pass_on(saying)

    def skip_mark(self, outbox: VoicesOutbox) -> None:
        """The first saying has waited for its mark for too long: say it, behind the text that is here."""
        saying, mark = self.sayings.popleft()
        assert mark is not None
        self.texts.append(mark)
        self.say_up_to(mark, saying, outbox)

    def say_texts(self, outbox: VoicesOutbox) -> None:
        """Say all text, without numbers; what was read up to which mark is still known."""
        texts, self.texts = self.texts, deque(entry for entry in self.texts if type(entry) is Place)
        for text in texts:
            if isinstance(text, Output):
                outbox.pass_on(text)

    def _take_up_to(self, mark: Place) -> Iterator[Output]:
        kept: list[Output | Place] = []
        while self.texts:
            entry = self.texts.popleft()
            if _is_at(entry, mark):
                if entry != mark:
                    kept.append(entry)  # a later one, which has been overtaken by nothing
                break
            if isinstance(entry, Output) and entry.stream == mark.stream:
                yield entry
            elif entry.stream != mark.stream:
                kept.append(entry)
        self.texts.extendleft(reversed(kept))

    def check(self) -> None:
        assert self.sayings or self.texts
        assert (self.due is not None) == (bool(self.sayings) or self.has_text)
        if self.sayings:
            assert self.sayings[0][1] is not None


def _is_at(entry: Output | Place, mark: Place) -> bool:
    """Whether this is the mark, or one that was made later in its stream."""
    return isinstance(entry, Place) and entry.stream == mark.stream and entry[1:] >= mark[1:]


def _output(engine: EngineId, text: ProcessText) -> Output:
    return Output(text.task, engine, text.stream, text.text, max(text.attempt, 1))


def _uncounted(engine: EngineId, word: LastWord, text: str) -> Output:
    return Output(word.task, engine, word.stream, text, word.attempt)


def _lost_words(count: int) -> str:
    writes = "1 write" if count == 1 else f"{count:,} writes"
    return f"[{writes} before this did not leave the engine before it died]\n"
