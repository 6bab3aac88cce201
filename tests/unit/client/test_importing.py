"""Import statements that hold on engines too."""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from enginery.client.client import Client
from enginery.errors import RemoteError
from enginery.objects.packing import unpack
from enginery.protocol.messages import Kind
from tests.unit.client.fake_session import FakeSession, make_client


@pytest.fixture
def parts() -> tuple[Client, FakeSession]:
    return make_client((0, 1))


@pytest.fixture(autouse=True)
def _import_is_put_back() -> Iterator[None]:
    real = builtins.__import__
    yield
    assert builtins.__import__ is real


def sent(session: FakeSession) -> list[str]:
    """The statements that the engines were told."""
    return [unpack(call.payload)[0] for call in session.submissions if call.options.kind is Kind.EXECUTE]


FORMS = {
    "import fractions": "fractions",
    "import fractions as fr": "fr",
    "import xml.dom": "xml.dom",
    "import xml.dom as dom": "dom",
    "import xml.dom.minidom as md": "md",
    "from xml import dom": "dom",
    "from xml.dom import minidom as md, Node": "md, Node",
    "from math import *": "sqrt",
}


@pytest.mark.parametrize("statement", FORMS)
def test_each_form_binds_the_same_there(parts: tuple[Client, FakeSession], statement: str) -> None:
    rc, session = parts
    names: dict[str, Any] = {"view": rc[:]}
    exec(f"with view.sync_imports(quiet=True):\n    {statement}\n", names)
    assert sent(session) == [statement]
    expected = eval(FORMS[statement], names)
    for engine in (0, 1):
        namespace = session._runners[engine]._namespace  # type: ignore[index]
        assert eval(FORMS[statement], namespace) == expected


def test_in_a_function_and_in_several_statements(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    with rc[:].sync_imports(quiet=True):
        import fractions as fr
        import math
        import string as st
        from decimal import Decimal as Dec
        from decimal import getcontext

        half = fr.Fraction(1, 2)  # uses what was bound in the line before

    assert sent(session) == [
        "import fractions as fr",
        "import math",
        "import string as st",
        "from decimal import Decimal as Dec",
        "from decimal import getcontext",
    ]
    assert (half, math.pi, st.digits, Dec(1)) == (0.5, math.pi, "0123456789", 1)
    assert callable(getcontext)


def test_relative_imports_become_absolute(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    names = {"view": rc[:], "__package__": "xml.dom", "__name__": "xml.dom.test"}
    exec("with view.importer:\n    from .. import sax\n    from . import minidom as m\n", names)
    assert sent(session) == ["from xml import sax", "from xml.dom import minidom as m"]


def test_imports_of_others_are_left_alone(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts

    def elsewhere() -> None:
        import fractions  # noqa: F401

    with rc[:].sync_imports(quiet=True):
        elsewhere()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(5)
    import os  # noqa: F401

    assert sent(session) == []


def test_what_is_imported_is_said(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    rc, _ = parts
    with rc[:].sync_imports():
        import fractions as fr  # noqa: F401
        from math import tau as t  # noqa: F401
    assert capsys.readouterr().out == (
        "importing fractions as fr on engine(s)\nimporting tau as t from math on engine(s)\n"
    )


def test_a_module_that_is_not_there(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught, rc[0].sync_imports(quiet=True):
        import no_such_module
    assert not isinstance(caught.value, RemoteError)
    assert sent(session) == []
    block = rc[0].sync_imports(local=False, quiet=True)
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught, block:
        import no_such_module  # noqa: F401
    assert isinstance(caught.value, RemoteError)


def test_on_the_engines_alone(parts: tuple[Client, FakeSession], monkeypatch: pytest.MonkeyPatch) -> None:
    rc, _ = parts
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    view = rc[:]
    told: list[str] = []
    monkeypatch.setattr(view, "_import", told.append)
    with view.sync_imports(local=False, quiet=True):
        import colorsys as c
        import colorsys.deeper.still as deep
        import math
        from colorsys import hls_to_rgb as to_rgb
    assert "colorsys" not in sys.modules
    assert told == [
        "import colorsys as c",
        "import colorsys.deeper.still as deep",
        "import math",
        "from colorsys import hls_to_rgb as to_rgb",
    ]
    assert math.pi == pytest.approx(3.14159, abs=1e-4)  # it was loaded here anyway
    assert repr(to_rgb) == "<colorsys.hls_to_rgb, imported on the engines alone>"
    assert repr(deep) == "<colorsys.deeper.still, imported on the engines alone>"
    with pytest.raises(
        AttributeError, match=r"colorsys was imported on the engines alone.*so it has no 'rgb_to_hls' here"
    ):
        _ = c.rgb_to_hls


def test_a_call_of_import_itself(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    with rc[:].sync_imports(quiet=True):
        module = __import__("math")
    assert module is sys.modules["math"]
    assert sent(session) == ["import math"]


def test_a_block_is_entered_once(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    block = rc[:].sync_imports()
    with block, pytest.raises(RuntimeError, match="already entered"):
        block.__enter__()
