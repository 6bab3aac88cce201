"""Who may speak for which identity, and who gets which id."""

from __future__ import annotations

from enginery.core.registry import ENDED_KEPT, Registry
from enginery.ids import ClientId, EngineId, EngineKey, HostKey
from enginery.protocol.messages import ENGINE_LIMIT, EngineHello, HostHello, Versions

VERSIONS = Versions("1.0", (3, 11))


def hello(key: str = "e1", *, secret: bytes = b"s", wanted: int = -1, python: int = 11) -> EngineHello:
    return EngineHello(
        EngineKey(key), secret, Versions("1.0", (3, python)), "host", HostKey(""), 1, EngineId(wanted), [], 0
    )


def joined(registry: Registry, key: str, wanted: int = -1) -> int:
    record, is_new = registry.on_engine_hello(hello(key, wanted=wanted))
    registry.check()
    assert is_new
    return record.engine


def test_engines_get_running_ids() -> None:
    registry = Registry(VERSIONS)
    assert [joined(registry, key) for key in "abc"] == [0, 1, 2]


def test_an_id_is_not_given_away_twice() -> None:
    registry = Registry(VERSIONS)
    joined(registry, "a")
    registry.on_engine_gone(EngineKey("a"))
    assert joined(registry, "b") == 1


def test_a_wanted_id_is_given_if_it_is_free() -> None:
    registry = Registry(VERSIONS)
    assert [joined(registry, "a", 3), joined(registry, "b", 3), joined(registry, "c")] == [3, 0, 1]


def test_an_impossible_id_is_not_given() -> None:
    registry = Registry(VERSIONS)
    impossible = (-7, ENGINE_LIMIT, (1 << 64) - 1)
    assert [joined(registry, str(wanted), wanted) for wanted in impossible] == [0, 1, 2]


def test_ids_stay_within_what_a_record_can_hold() -> None:
    registry = Registry(VERSIONS)
    last = ENGINE_LIMIT - 1
    assert [joined(registry, "a", last), joined(registry, "b", last), joined(registry, "c")] == [last, 0, 1]


def test_when_all_ids_were_used_those_of_engines_that_left_are_free() -> None:
    registry = Registry(VERSIONS)
    joined(registry, "a", 0)
    joined(registry, "b", 1)
    registry._given.low = ENGINE_LIMIT
    registry.on_engine_gone(EngineKey("a"))
    assert [joined(registry, "c"), joined(registry, "d")] == [0, 2]


def test_reserved_ids_are_for_those_who_want_them() -> None:
    registry = Registry(VERSIONS)
    assert registry.reserve_engines(2) == [0, 1]
    assert joined(registry, "a") == 2
    assert joined(registry, "b", 1) == 1


def test_the_same_process_says_hello_again() -> None:
    registry = Registry(VERSIONS)
    first, _ = registry.on_engine_hello(hello())
    again, is_new = registry.on_engine_hello(hello())
    assert again is first
    assert not is_new


def test_another_secret_is_refused() -> None:
    registry = Registry(VERSIONS)
    joined(registry, "e1")
    assert (
        registry.refuse_engine(hello(secret=b"x")) == "another process has registered under this engine's key"
    )
    assert registry.owns_engine(EngineKey("e1"), b"s")
    assert not registry.owns_engine(EngineKey("e1"), b"x")
    assert not registry.owns_engine(EngineKey("e2"), b"s")


def test_another_python_is_refused_with_both_versions() -> None:
    refusal = Registry(VERSIONS).refuse_engine(hello(python=13))
    assert refusal.startswith("it runs Python 3.13 and the controller 3.11; ")


def test_the_hello_of_a_process_that_has_ended_comes_too_late() -> None:
    registry = Registry(VERSIONS)
    registry.on_engine_ended(EngineKey("e1"))
    assert registry.refuse_engine(hello()) == "this engine's process has ended"
    for number in range(ENDED_KEPT):
        registry.on_engine_ended(EngineKey(f"other {number}"))
    assert len(registry._ended) == ENDED_KEPT
    assert registry.refuse_engine(hello()) == ""


def test_a_client_is_bound_to_its_secret() -> None:
    registry = Registry(VERSIONS)
    client = ClientId(5)
    assert registry.on_client_hello(client, b"s")[1]
    assert registry.refuse_client(client, b"s", VERSIONS) == ""
    assert registry.refuse_client(client, b"x", VERSIONS) == "another client has registered under this id"
    assert not registry.on_client_hello(client, b"s")[1]
    registry.on_client_gone(client)
    assert "was given up" in registry.refuse_client(client, b"s", VERSIONS)
    assert registry.refuse_client(ClientId(6), b"x", VERSIONS) == ""


def test_a_host_is_bound_to_its_secret() -> None:
    registry = Registry(VERSIONS)
    hello, stranger = (HostHello(HostKey("h"), secret, "box", 7, []) for secret in (b"s", b"x"))
    assert registry.on_host_hello(hello)
    assert registry.on_host_hello(hello)
    assert not registry.on_host_hello(stranger)
    registry.on_host_gone(HostKey("h"))
    assert registry.on_host_hello(stranger)
