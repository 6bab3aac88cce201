"""Cards as HTML: no script, nothing from elsewhere, legible without its style, in light and dark themes.

Colours of text and ground are those of the page; the few of its own are legible on both. What comes from
users and tasks is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from enginery.client.snapshots import TaskLine
from enginery.frontends.faces.cards import Bar, Card
from enginery.frontends.faces.words import counted, one_line, report

STYLE = (
    ".enginery{max-width:44em;padding:.55em .8em;border:1px solid rgba(128,128,128,.35);border-radius:6px;"
    "font-size:13px;line-height:1.45}"
    ".enginery b{font-weight:600}"
    ".enginery small{font-size:12px;opacity:.75}"
    ".enginery u{display:inline-block;width:.6em;height:.6em;margin-right:.45em;border-radius:50%}"
    ".enginery .bar{display:flex;height:5px;margin:.45em 0;border-radius:3px;overflow:hidden;"
    "background:rgba(128,128,128,.22)}"
    ".enginery .line{display:flex;align-items:center;gap:.7em}"
    ".enginery .line .bar{flex:0 0 9em;margin:0}"
    ".enginery .cells{display:flex;flex-wrap:wrap;gap:3px;margin-top:.45em}"
    ".enginery .cells u{width:11px;height:11px;margin:0;border-radius:2px}"
    ".enginery .good{background:#2f9e62}.enginery .busy{background:#3f83d6}"
    ".enginery .bad{background:#d24d57}.enginery .idle{background:#8b929c}"
    ".enginery .ahead{background:#3f83d6;opacity:.45}"
)


def card_html(card: Card) -> str:
    """All of a card."""
    return "".join([f"<div class=enginery><style>{STYLE}</style>", *_parts(card), "</div>"])


def _parts(card: Card) -> Iterable[str]:
    state = f" <small>{escape(card.state)}</small>" if card.state else ""
    yield f"<div><u class={card.tone}></u><b>{escape(card.title)}</b>{state}</div>"
    if card.bar is not None:
        yield _bar(card.bar)
    if card.facts:
        yield f"<div>{escape(' · '.join(card.facts))}</div>"
    yield from map(_line, card.lines)
    if card.more_lines:
        yield f"<div><small>and {counted(card.more_lines, 'more tasks')}</small></div>"
    if card.cells:
        cells = "".join(f"<u class={cell.tone} title={_quoted(cell.text)}></u>" for cell in card.cells)
        more = f"<small>and {counted(card.more_cells, 'more engines')}</small>" if card.more_cells else ""
        yield f"<div class=cells>{cells}{more}</div>"
    for note in card.notes:
        yield f"<div><small>{escape(note)}</small></div>"


def _bar(bar: Bar) -> str:
    shares = (("good", bar.good), ("bad", bar.bad), ("ahead", bar.ahead))
    drawn = "".join(
        f'<div class={kind} style="width:{share * 100:.4g}%"></div>' for kind, share in shares if share > 0
    )
    return f"<div class=bar>{drawn}</div>"


def _line(line: TaskLine) -> str:
    bar = _bar(Bar(ahead=line.fraction or 0.0))
    where = f"<small>{escape(one_line(line.where))}</small>" if line.where else ""
    return f"<div class=line>{bar}{where}<span>{escape(report(line))}</span></div>"


def _quoted(text: str) -> str:
    return f'"{escape(text, quote=True)}"'
