"""How clusters, views, results and progress look: exactly, as text and as HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from enginery.client.snapshots import (
    ClusterSnapshot,
    EngineSnapshot,
    ResultSnapshot,
    ResultState,
    Snapshot,
    Standing,
    TaskCounts,
    TaskLine,
)
from enginery.frontends.faces.cards import card_of
from enginery.frontends.faces.html import STYLE, card_html
from enginery.frontends.faces.notebook import bundle_of
from enginery.frontends.faces.text import bar_tail, card_text, line_text
from enginery.frontends.faces.words import clock, counted, duration, one_line, percent

EVIL = "<script>alert('\"&')</script>"


def text_of(snapshot: Snapshot) -> str:
    return card_text(card_of(snapshot))


def html_of(snapshot: Snapshot) -> str:
    """The HTML without what is the same for all."""
    html = card_html(card_of(snapshot))
    before, after = f"<div class=enginery><style>{STYLE}</style>", "</div>"
    assert html.startswith(before)
    assert html.endswith(after)
    return html.removeprefix(before).removesuffix(after)


RUNNING = ResultSnapshot(
    "AsyncMapResult",
    "running",
    Standing(
        done=37,
        total=100,
        failed=2,
        name="simulate",
        unit="items",
        elapsed_s=12.0,
        ahead=0.5,
        lines=(TaskLine("item 37, engine 0", 0.5, "epoch 3"), TaskLine("item 38, engine 1", None, "loading")),
        more_lines=1,
    ),
    label="night",
    engines=(0, 1, 2),
    running=3,
    error="ValueError: no",
)
ENGINES = (
    EngineSnapshot(0, "node1", "busy", 3, 12),
    EngineSnapshot(1, "node1", "idle", 0, 1),
    EngineSnapshot(2, "node2", "disconnected"),
)
CLIENT = ClusterSnapshot(
    "Client",
    "of 'default'",
    engines=ENGINES,
    counts=TaskCounts(queued=3, running=1, done=13, failed=2),
    outstanding=4,
    uptime_s=4000.0,
    clients=2,
)

# ---------------------------------------------------------------- results


def test_a_result_that_runs() -> None:
    assert text_of(RUNNING) == (
        "<AsyncMapResult: simulate: running, 37/100 items, 2 failed, 3 running on engines 0-2, 12 s, "
        "about 20 s left, label 'night'>\n"
        "  item 37, engine 0: 50 % epoch 3\n"
        "  item 38, engine 1: loading\n"
        "  and 1 more task\n"
        "  first error: ValueError: no"
    )
    assert html_of(RUNNING) == (
        "<div><u class=busy></u><b>AsyncMapResult simulate</b> <small>running</small></div>"
        '<div class=bar><div class=good style="width:35%"></div><div class=bad style="width:2%"></div>'
        '<div class=ahead style="width:0.5%"></div></div>'
        "<div>37/100 items · 2 failed · 3 running on engines 0-2 · 12 s · about 20 s left"
        " · label &#x27;night&#x27;</div>"
        '<div class=line><div class=bar><div class=ahead style="width:50%"></div></div>'
        "<small>item 37, engine 0</small><span>50 % epoch 3</span></div>"
        "<div class=line><div class=bar></div><small>item 38, engine 1</small><span>loading</span></div>"
        "<div><small>and 1 more task</small></div>"
        "<div><small>first error: ValueError: no</small></div>"
    )


def test_a_result_that_is_done() -> None:
    standing = Standing(4, 4, name="f", elapsed_s=1.2)
    done = ResultSnapshot("AsyncResult", "done", standing, engines=(0, 1, 2, 3), serial_s=4.1)
    assert text_of(done) == "<AsyncResult: f: done, 4/4 tasks, on engines 0-3, in 1.2 s, 4.1 s of work>"
    assert html_of(done) == (
        "<div><u class=good></u><b>AsyncResult f</b> <small>done</small></div>"
        "<div>4/4 tasks · on engines 0-3 · in 1.2 s · 4.1 s of work</div>"
    )


@pytest.mark.parametrize(
    ("state", "tone", "facts"),
    [
        ("failed", "bad", "4/4 tasks, 1 failed, 1 cancelled, on engine 1, in 1.2 s"),
        ("cancelled", "bad", "4/4 tasks, 1 failed, 1 cancelled, on engine 1, in 1.2 s"),
        ("waiting", "idle", "4/4 tasks, 1 failed, 1 cancelled, none running now, 1.2 s"),
    ],
)
def test_other_states(state: ResultState, tone: str, facts: str) -> None:
    standing = Standing(4, 4, 1, 1, elapsed_s=1.2)
    result = ResultSnapshot("AsyncResult", state, standing, engines=(1,), running=0, serial_s=1.2)
    assert text_of(result) == f"<AsyncResult: {state}, {facts}>"
    assert html_of(result).startswith(
        f"<div><u class={tone}></u><b>AsyncResult</b> <small>{state}</small></div>"
    )


def test_nobody_knows_what_runs() -> None:
    waiting = ResultSnapshot("AsyncResult", "waiting", Standing(0, 1, elapsed_s=0.04))
    assert text_of(waiting) == "<AsyncResult: waiting, 0/1 task, 0.0 s>"
    assert "none running yet" in text_of(waiting._replace(running=0))
    closed = waiting._replace(end="this client is closed")
    assert text_of(closed).splitlines()[1] == (
        "  nothing more will be heard of it here: this client is closed"
    )


# ---------------------------------------------------------------- clusters


def test_a_client() -> None:
    assert text_of(CLIENT) == (
        "<Client of 'default': running, 3 engines, 1 running, 3 queued, 13 done, 2 failed, "
        "4 of this client unfinished, 2 clients, up 1 h 6 min>\n"
        "  engine 0 on node1, busy, 3 queued, 12 done\n"
        "  engine 1 on node1, idle, 1 done\n"
        "  engine 2 on node2, disconnected"
    )
    assert html_of(CLIENT) == (
        "<div><u class=bad></u><b>Client of &#x27;default&#x27;</b> <small>running</small></div>"
        "<div>3 engines · 1 running · 3 queued · 13 done · 2 failed · 4 of this client unfinished · 2 clients"
        " · up 1 h 6 min</div>"
        '<div class=cells><u class=busy title="engine 0 on node1, busy, 3 queued, 12 done"></u>'
        '<u class=good title="engine 1 on node1, idle, 1 done"></u>'
        '<u class=bad title="engine 2 on node2, disconnected"></u></div>'
    )


def test_a_client_that_is_closed_or_gets_no_answer() -> None:
    closed = ClusterSnapshot("Client", "of 'x'", "closed", note="the cluster was shut down")
    assert text_of(closed) == "<Client of 'x': closed>\n  the cluster was shut down"
    assert html_of(closed) == (
        "<div><u class=idle></u><b>Client of &#x27;x&#x27;</b> <small>closed</small></div>"
        "<div><small>the cluster was shut down</small></div>"
    )
    silent = ClusterSnapshot("Client", "", engines=(EngineSnapshot(0, "a"),), outstanding=0, note="no answer")
    assert text_of(silent) == "<Client: 1 engine>\n  engine 0 on a\n  no answer"


def test_a_view_and_a_cluster() -> None:
    view = ClusterSnapshot(
        "DirectView", "[0,1]", engines=ENGINES[1:2], counts=TaskCounts(), flags=(("block", "True"),)
    )
    assert (
        text_of(view) == "<DirectView [0,1]: idle, 1 engine, block=True>\n  engine 1 on node1, idle, 1 done"
    )
    assert text_of(ClusterSnapshot("Cluster", "'x'", "not running")) == "<Cluster 'x': not running>"


def test_many_engines_make_no_long_page() -> None:
    many = ClusterSnapshot("Client", "", engines=tuple(EngineSnapshot(n, "h", "idle") for n in range(1000)))
    assert text_of(many).splitlines()[-1] == "  and 984 more engines"
    assert len(text_of(many).splitlines()) == 18
    assert html_of(many).count("title=") == 128
    assert html_of(many).endswith("<small>and 872 more engines</small></div>")
    assert len(html_of(many)) < 8_000


# ---------------------------------------------------------------- progress


def test_progress() -> None:
    assert text_of(RUNNING.standing).startswith(
        "<simulate: running, 37/100 items, 2 failed, 12 s, about 20 s left>\n"
    )
    over = Standing(5, 5, name="f", unit="items", elapsed_s=61)
    assert text_of(over) == "<f: 5/5 items, 1 min 1 s>"
    assert html_of(over) == (
        '<div><u class=good></u><b>f</b></div><div class=bar><div class=good style="width:100%"></div></div>'
        "<div>5/5 items · 1 min 1 s</div>"
    )
    endless = Standing(5, None, unit="items", elapsed_s=3)
    assert text_of(endless) == "<items: running, 5 items, 3.0 s>"
    assert "class=bar" not in html_of(endless)


@pytest.mark.parametrize(
    ("standing", "tail"),
    [
        (Standing(0, 3, unit="engines", elapsed_s=0.2), "0/3 engines [0:00]"),
        (
            Standing(37, 100, 2, 1, unit="items", elapsed_s=12),
            "37/100 items [0:12<0:20, 2 failed, 1 cancelled]",
        ),
        (Standing(0, 2, elapsed_s=60, ahead=0.5), "0/2 tasks [1:00<3:00]"),
        (Standing(2, 2, elapsed_s=3600), "2/2 tasks [1:00:00]"),
        (Standing(1234, None, unit="items", elapsed_s=5), "1,234 items [0:05]"),
    ],
)
def test_behind_the_bar_of_a_terminal(standing: Standing, tail: str) -> None:
    assert bar_tail(standing) == tail


# ---------------------------------------------------------------- what comes from others


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.open.append(tag)
        assert {name for name, _ in attrs} <= {"class", "title", "style"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    "snapshot",
    [
        RUNNING._replace(
            kind=EVIL,
            label=EVIL,
            error=EVIL,
            standing=Standing(1, 2, name=EVIL, lines=(TaskLine(EVIL, 0.1, EVIL),)),
        ),
        CLIENT._replace(
            kind=EVIL,
            name=EVIL,
            note=EVIL,
            flags=((EVIL, EVIL),),
            engines=(EngineSnapshot(0, EVIL, "idle"),),
        ),
        Standing(1, 2, name=EVIL),
    ],
)
def test_nothing_of_others_becomes_html_or_moves_a_cursor(snapshot: Snapshot) -> None:
    bundle = bundle_of(snapshot)
    reader = Reader()
    reader.feed(bundle["text/html"])
    assert reader.open == []
    assert reader.tags <= {"div", "b", "small", "u", "span", "style"}
    assert "alert" in bundle["text/html"]
    assert not re.search(r"https?:|url\(|@import|<a |href", bundle["text/html"])


def test_texts_stay_in_their_lines() -> None:
    line = TaskLine("item 1\n", 0.999, "a\r\x1b[2Kb\n" + "x" * 1000)
    assert line_text(line) == "item 1: 99 % a [2Kb " + "x" * (199 - 7) + "…"
    error = RUNNING._replace(error="ValueError: a\nTraceback of somebody else")
    assert "  first error: ValueError: a Traceback of somebody else" in text_of(error)
    assert text_of(Standing(name="f" * 1000)).startswith(f"<{'f' * 79}…: running, ")


# ---------------------------------------------------------------- words


def test_words() -> None:
    assert [duration(seconds) for seconds in (-1, 0, 9.96, 59.6, 60, 3599.6, 86_400)] == [
        *("0.0 s", "0.0 s", "10 s", "1 min", "1 min", "1 h", "1 d"),
    ]
    assert [clock(seconds) for seconds in (-1, 59.9, 3600)] == ["0:00", "0:59", "1:00:00"]
    assert [percent(share) for share in (0, 0.29, 0.995, 1)] == ["0 %", "29 %", "99 %", "100 %"]
    assert counted(0, "items") == "0 items"
    assert one_line("\udcff\u202e a\tb") == "a b"


def test_time_left_is_judged_by_what_is_done() -> None:
    assert Standing(0, 10, elapsed_s=5).left_s is None
    assert Standing(5, None, elapsed_s=5).left_s is None
    assert Standing(10, 10, elapsed_s=5).left_s is None
    assert Standing(2, 10, elapsed_s=5).left_s == 20
    assert Standing(0, 1, elapsed_s=5, ahead=0.25).left_s == 15
    assert Standing(0, 1, elapsed_s=5, ahead=1.0).left_s == 0
