"""Who left without having proven himself."""

from enginery.transport.strangers import Doorkeeper


def test_a_peer_that_leaves_is_no_stranger() -> None:
    door = Doorkeeper(patience_s=6)
    door.on_accepted(5, "a:1", now=0)
    door.on_succeeded()
    assert door.on_disconnected(5, now=1) is None
    assert repr(door) == "<Doorkeeper: 0 unproven, 0 successes>"


def test_a_connection_that_ends_without_success_is_one() -> None:
    door = Doorkeeper(patience_s=6)
    door.on_accepted(5, "a:1", now=0)
    rejected = door.on_disconnected(5, now=1)
    assert rejected is not None
    assert rejected.peer == "a:1"


def test_a_failure_gives_its_reason_once_and_an_empty_one_is_silent() -> None:
    door = Doorkeeper(patience_s=6)
    for reason, reported in (("wrong key", True), ("", False)):
        door.on_accepted(5, "a:1", now=0)
        door.on_failed(reason)
        rejected = door.on_disconnected(5, now=1)
        assert (rejected is not None) is reported
    door.on_accepted(6, "a:2", now=0)
    door.on_succeeded()
    assert door.on_disconnected(6, now=1) is None


def test_a_stranger_among_peers_is_counted_once() -> None:
    door = Doorkeeper(patience_s=6)
    for connection in (1, 2, 3):
        door.on_accepted(connection, f"a:{connection}", now=0)
    door.on_succeeded()
    door.on_succeeded()
    reported = [door.on_disconnected(connection, now=1) for connection in (1, 2, 3)]
    assert sum(rejected is not None for rejected in reported) == 1
    assert repr(door) == "<Doorkeeper: 0 unproven, 0 successes>"


def test_old_connections_have_proven_themselves_and_are_forgotten() -> None:
    door = Doorkeeper(patience_s=6)
    door.on_accepted(1, "a:1", now=0)
    door.on_accepted(2, "a:2", now=0)
    door.on_succeeded()
    assert door.on_disconnected(1, now=10) is None
    assert repr(door) == "<Doorkeeper: 0 unproven, 0 successes>"
    assert door.on_disconnected(2, now=10) is None
