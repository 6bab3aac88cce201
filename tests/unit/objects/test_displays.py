"""Displays on their way: packed as they are now, and a sentence for what cannot be sent."""

from __future__ import annotations

from typing import Any

import pytest

from enginery.errors import TooLarge
from enginery.objects import displays
from enginery.objects.displays import Bundle, pack_display, unpack_display


def test_a_bundle_comes_out_as_it_went_in() -> None:
    data = {"text/plain": "x", "image/png": b"\x89PNG", "application/json": {"a": [1, 2.5, None]}}
    content = pack_display(data, {"image/png": {"width": 5}}, {"display_id": "d"})
    assert unpack_display(content) == Bundle(data, {"image/png": {"width": 5}}, {"display_id": "d"})
    assert unpack_display(pack_display({})) == Bundle({}, {}, {})


def test_text_that_utf_8_cannot_say_is_written_out() -> None:
    assert unpack_display(pack_display({"text/plain": "x\udcff"})).data == {"text/plain": "x\\udcff"}


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize("value", [object(), {"a": object()}, circular(), 1 << 70, {"deep": "\udcff"}])
def test_what_is_no_plain_data_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match="what is displayed as 'application/json' cannot be sent: "):
        pack_display({"text/plain": "x", "application/json": value})


@pytest.mark.parametrize(("data", "said"), [([1], r"not \[1\]"), ({1: "x"}, "as its keys, not 1")])
def test_what_is_no_bundle(data: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        pack_display(data)


def test_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displays, "CONTENT_LIMIT_BYTES", 100)
    with pytest.raises(TooLarge, match="what is displayed as text/html"):
        pack_display({"text/html": "x" * 101})


@pytest.mark.parametrize("content", [b"", b"\x93", b"\x93\x80\x80\x01", b"\xc1", pack_display({})[:-1]])
def test_what_is_no_display(content: bytes) -> None:
    with pytest.raises(ValueError, match="this is no display: "):
        unpack_display(content)
