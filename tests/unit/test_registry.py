"""The registry: names are looked up late, and only by those who provided them."""

import sys

import pytest

from enginery import registry


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_homes", {})


def test_a_name_is_an_attribute_of_its_home() -> None:
    registry.provide({"dumps": "json"})
    assert registry.find("dumps") is sys.modules["json"].dumps


def test_a_home_may_call_it_otherwise() -> None:
    registry.provide({"write": "json:dumps"})
    assert registry.find("write") is sys.modules["json"].dumps


def test_nothing_is_imported_before_it_is_found() -> None:
    registry.provide({"x": "a_module_that_is_not_there"})
    assert list(registry.names()) == ["x"]
    with pytest.raises(ModuleNotFoundError):
        registry.find("x")


def test_an_unknown_name() -> None:
    with pytest.raises(LookupError, match="nothing is registered under the name 'lost'"):
        registry.find("lost")


def test_a_name_has_one_home() -> None:
    registry.provide({"dumps": "json"})
    registry.provide({"dumps": "json"})
    with pytest.raises(ValueError, match="'dumps' lives in json already, not in marshal"):
        registry.provide({"dumps": "marshal"})


def test_a_home_may_be_a_module() -> None:
    registry.provide({"coder": "json.encoder:"})
    assert registry.find("coder") is sys.modules["json.encoder"]


def test_a_module_that_passes_names_on() -> None:
    registry.provide({"dumps": "json", "loads": "json"})
    find_late = registry.lend("an.old.path", ("dumps",))
    assert find_late("dumps") is sys.modules["json"].dumps
    with pytest.raises(AttributeError, match=r"module 'an\.old\.path' has no attribute 'loads'"):
        find_late("loads")


def test_modules_by_their_names() -> None:
    assert registry.find_module("enginery.registry") is registry
    assert registry.find_module("enginery.nothing_of_this_name") is None
