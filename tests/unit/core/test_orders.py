"""Orders to several engines, until each has answered."""

from __future__ import annotations

from enginery.core.orders import ANSWER_WAIT_S, Orders
from enginery.ids import ClientId, EngineId

CLIENT = ClientId(1)
ONE, TWO = EngineId(1), EngineId(2)


def test_an_order_is_complete_when_the_last_engine_has_answered() -> None:
    orders = Orders()
    number = orders.on_ordered(CLIENT, 7, [TWO, ONE, TWO], deed="d", now=10.0)
    assert orders.engines(number) == [ONE, TWO]
    assert orders.on_answered(number, ONE) is None
    assert orders.on_answered(number, ONE) is None, "twice does no harm"
    orders.check()
    order = orders.on_answered(number, TWO)
    assert order is not None
    assert (order.client, order.request, order.engines) == (CLIENT, 7, [ONE, TWO])
    assert orders.on_answered(number, TWO) is None
    assert orders.next_deadline() is None


def test_an_engine_is_told_again_what_it_has_not_answered() -> None:
    orders = Orders()
    first = orders.on_ordered(CLIENT, 1, [ONE, TWO], deed="d", now=10.0)
    second = orders.on_ordered(CLIENT, 2, [TWO], deed="d", now=11.0)
    assert (orders.of(ONE), orders.of(TWO)) == ([first], [first, second])
    orders.on_answered(first, TWO)
    assert orders.of(TWO) == [second]


def test_what_would_do_harm_twice_is_said_once() -> None:
    orders = Orders()
    number = orders.on_ordered(CLIENT, 1, [ONE], deed="d", is_repeated=False, now=10.0)
    assert orders.of(ONE) == []
    assert orders.on_answered(number, ONE) is not None


def test_an_engine_that_leaves_counts_as_answered() -> None:
    orders = Orders()
    orders.on_ordered(CLIENT, 1, [ONE, TWO], deed="d", now=10.0)
    orders.on_ordered(CLIENT, 2, [TWO], deed="d", now=10.0)
    assert [order.request for order in orders.on_engine_gone(TWO)] == [2]
    orders.check()
    assert [order.request for order in orders.on_engine_gone(ONE)] == [1]
    assert repr(orders) == "<Orders: 0 under way>"


def test_what_is_not_answered_in_time_is_not_waited_for() -> None:
    orders = Orders()
    first = orders.on_ordered(CLIENT, 1, [ONE, TWO], deed="d", now=10.0)
    orders.on_ordered(CLIENT, 2, [ONE], deed="d", now=11.0)
    assert orders.next_deadline() == 10.0 + ANSWER_WAIT_S
    assert orders.take_overdue(now=10.0 + ANSWER_WAIT_S - 0.1) == []
    (order,) = orders.take_overdue(now=10.0 + ANSWER_WAIT_S)
    assert (order.request, order.open) == (1, {ONE, TWO})
    assert orders.on_answered(first, ONE) is None
    assert orders.next_deadline() == 11.0 + ANSWER_WAIT_S
