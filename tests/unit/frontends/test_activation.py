"""Whose magics ``%px`` is: the first client's, until somebody asks for others."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import enginery
from enginery.client.client import Client
from enginery.frontends.activation import find_magics, offer_magics
from tests.unit.client.fake_session import FakeSession
from tests.unit.frontends.site import Site


def test_the_first_client_has_a_view_of_its_own(site: Site) -> None:
    assert find_magics(site.shell, "") is None
    offer_magics(site.rc)
    magics = find_magics(site.shell, "")
    assert magics is not None
    assert repr(magics) == "<ParallelMagics %px on <DirectView all>>"
    assert magics.view.block is True
    assert magics.view is not site.rc.direct_view("all")
    with Client.over(FakeSession()) as second:
        offer_magics(second)
    assert find_magics(site.shell, "") is magics


def test_the_next_client_follows_one_that_is_closed(site: Site) -> None:
    offer_magics(site.rc)
    site.rc.close()
    with Client.over(FakeSession()) as second:
        offer_magics(second)
        magics = find_magics(site.shell, "")
        assert magics is not None
        assert magics.view.client is second


def test_no_engines_yet(site: Site) -> None:
    with Client.over(FakeSession(())) as empty:
        offer_magics(empty)
    assert find_magics(site.shell, "") is not None


def test_magics_of_others_stay(site: Site) -> None:
    site.shell.register_magic_function(print, magic_name="px")
    offer_magics(site.rc)
    assert site.shell.find_line_magic("px") is print
    site.rc.activate()
    assert find_magics(site.shell, "") is not None


def test_a_real_client_offers_itself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    offered: list[Any] = []
    monkeypatch.setattr("enginery.frontends.activation.offer_magics", offered.append)
    monkeypatch.setattr("enginery.client.client.find_connection", lambda *_: (site.rc, ""))
    monkeypatch.setattr("enginery.client.client.Session.open", lambda *_, **__: FakeSession())
    monkeypatch.setattr(site.rc, "cluster", "", raising=False)
    with Client() as client:
        assert offered == [client]


def test_magics_that_are_replaced_are_let_go(site: Site) -> None:
    before = len(site.shell.configurables)
    for _ in range(3):
        site.rc.activate()
    assert len(site.shell.configurables) == before + 1


def test_the_shell_of_an_engine_is_nobodys_front_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(site.shell), "__module__", "enginery.engine.shell")
    offer_magics(site.rc)
    assert find_magics(site.shell, "") is None


def test_without_ipython_activate_returns_the_view() -> None:
    with Client.over(FakeSession()) as rc:
        view = rc[:]
        assert view.activate("_x") is view
        assert rc.activate().block is True


def test_ipython_is_imported_by_nobody() -> None:
    code = (
        "import sys, enginery as ipp; ipp.Client, ipp.Cluster, ipp.AsyncResult, ipp.DirectView; "
        "import enginery.client.magics; "
        "sys.exit('IPython' in sys.modules or 'enginery.frontends' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0
    assert enginery is not None
