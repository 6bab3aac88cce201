"""Keys: which credential proves which role."""

import pytest
from zmq.utils import z85

from enginery.transport.authentication import DOMAIN, Authenticator
from enginery.transport.channel import Role
from enginery.transport.keys import ClusterKeys


@pytest.fixture(scope="module")
def keys() -> ClusterKeys:
    return ClusterKeys.generate()


def test_roles_have_credentials_of_their_own(keys: ClusterKeys) -> None:
    entries = [keys.credentials(role) for role in Role]
    for field in ("public_key", "secret_key", "token"):
        assert len({getattr(entry, field) for entry in entries}) == 3
    assert {entry.server_key for entry in entries} == {keys.server_public}


@pytest.mark.parametrize("role", list(Role))
def test_a_key_and_a_token_prove_their_role_only(keys: ClusterKeys, role: Role) -> None:
    entry = keys.credentials(role)
    assert keys.role_of_key(entry.public_key) is role
    assert keys.role_of_token(role.value, entry.token) is role
    assert keys.role_of_key(entry.secret_key) is None
    for other in set(Role) - {role}:
        assert keys.role_of_token(other.value, entry.token) is None


@pytest.mark.parametrize(("name", "token"), [("", ""), ("client", ""), ("client", "\udcff"), ("nobody", "x")])
def test_anything_else_proves_nothing(keys: ClusterKeys, name: str, token: str) -> None:
    assert keys.role_of_token(name, token) is None


def test_secrets_are_not_shown(keys: ClusterKeys) -> None:
    entry = keys.credentials(Role.CLIENT)
    assert repr(entry) == "<RoleCredentials client>"
    assert repr(keys) == "<ClusterKeys for client, engine, host>"


def _question(mechanism: bytes, *credentials: bytes, domain: bytes = DOMAIN) -> list[bytes]:
    return [b"route", b"", b"1.0", b"7", domain, b"10.0.0.9", b"", mechanism, *credentials]


def test_the_answer_names_the_role(keys: ClusterKeys) -> None:
    key = z85.decode(keys.credentials(Role.ENGINE).public_key)
    reply, rejected = Authenticator(keys).answer(_question(b"CURVE", key))
    assert reply == [b"route", b"", b"1.0", b"7", b"200", b"OK", b"engine", b""]
    assert rejected is None


@pytest.mark.parametrize(
    "question",
    [
        _question(b"NULL"),
        _question(b"CURVE", bytes(32)),
        _question(b"CURVE", b"short"),
        _question(b"PLAIN", b"client", b"\xff\xfe"),
        _question(b"PLAIN", b"client"),
    ],
)
def test_a_stranger_is_refused_and_named(keys: ClusterKeys, question: list[bytes]) -> None:
    reply, rejected = Authenticator(keys).answer(question)
    assert reply[4] == b"400"
    assert rejected is not None
    assert rejected.peer == "10.0.0.9"
    assert rejected.reason.endswith("is not one of this cluster")


def test_the_domain_is_checked(keys: ClusterKeys) -> None:
    key = z85.decode(keys.credentials(Role.ENGINE).public_key)
    reply, rejected = Authenticator(keys).answer(_question(b"CURVE", key, domain=b"other"))
    assert reply[4] == b"400"
    assert rejected is not None


def test_a_cut_question_gets_no_answer(keys: ClusterKeys) -> None:
    reply, rejected = Authenticator(keys).answer([b"route", b"", b"1.0"])
    assert reply == []
    assert rejected is not None
