"""Task ids as users see them."""

from __future__ import annotations

import pytest

from enginery.ids import ClientId, format_task_id, make_task_id, parse_task_id


@pytest.mark.parametrize(("client", "number"), [(0, 0), (1, 17), (0x7FFFFFFF, (1 << 32) - 1)])
def test_an_id_as_text_and_back(client: int, number: int) -> None:
    task = make_task_id(ClientId(client), number)
    assert parse_task_id(format_task_id(task)) == task


@pytest.mark.parametrize(
    "text", ["", "x", "3fa9c01b", "3fa9c01b-", "3fa9c01b-x", "3fa9c01b-4294967296", "ffffffff-1", "-3fa9c0-1"]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a task id; task ids look like '3fa9c01b-17'"):
        parse_task_id(text)
