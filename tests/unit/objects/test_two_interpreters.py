"""By value between real interpreters: a script and an engine that has never seen it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[3] / "src"

ENGINE = """
import pickle, sys
from enginery.objects.companions import CompanionTable
from enginery.objects.failures import pack_failure
from enginery.objects.functions import build
from enginery.objects.packing import pack, unpack_call

namespace = vars(sys.modules["__main__"])
namespace.update(on_engine=100)
table = CompanionTable(namespace)

def serve():
    while True:
        try:
            function, inline, buffers = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            built = build(function, namespace)
            call = unpack_call(inline, buffers, namespace=namespace)
            with table.active(built.companions, call.companions):
                result = built.function(*call.args, **call.kwargs)
            answer = True, pack(result)
        except BaseException as error:
            answer = False, pack_failure(error, engine=0)
        good, packed = answer
        pickle.dump((good, packed.inline, [bytes(b) for b in packed.buffers]), sys.stdout.buffer)
        sys.stdout.buffer.flush()

serve()
"""

CLIENT = """
import linecache, os, pickle, subprocess, sys
from enginery.errors import RemoteError
from enginery.objects.failures import unpack_failure
from enginery.objects.functions import FunctionCache
from enginery.objects.packing import pack_call, unpack

engine = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
cache = FunctionCache()

def remote(function, *args, **kwargs):
    packed = pack_call(args, kwargs)
    pickle.dump((cache.pack(function).data, packed.inline, [bytes(b) for b in packed.buffers]), engine.stdin)
    engine.stdin.flush()
    good, inline, buffers = pickle.load(engine.stdout)
    if good:
        return unpack(inline, buffers)
    raise unpack_failure(inline, buffers)

try:
    with open(sys.argv[2]) as script:
        source = script.read()
    linecache.getlines(sys.argv[2])
    os.remove(sys.argv[2])  # the engine must not find the lines of the script by itself
    exec(compile(source, sys.argv[2], "exec"), globals())
finally:
    engine.stdin.close()
    engine.wait(20)
    engine.stdout.close()
"""


def run(tmp_path: Path, script: str) -> None:
    path = tmp_path / "script.py"
    path.write_text(script)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CLIENT, ENGINE, str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PYTHONPATH": str(SOURCES), "PATH": ""},
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


CASES = {
    "free names and companions": """
import math
local = 5
def tool(x):
    return math.floor(x) + on_engine
def f(x):
    return tool(x) + 1
assert remote(f, 2.5) == 103
try:
    remote(lambda: local)
except NameError as error:
    assert isinstance(error, RemoteError)
    assert "run  view.push({'local': local})" in str(error), str(error)
assert remote(lambda: sorted(n for n in globals() if n in ("tool", "math", "f", "local"))) == []
""",
    "classes": """
import abc, dataclasses, enum, functools
def scale(k, x):
    return k * x
class Tool(abc.ABC):
    def __init__(self, k):
        self.k = k
    def use(self, x):
        return scale(self.k, x) + on_engine
    @classmethod
    def make(cls):
        return cls(5)
    @property
    def twice(self):
        return scale(2, self.k)
    @staticmethod
    def zero():
        return on_engine * 0
class Child(Tool):
    __slots__ = ()
    def use(self, x):
        return super().use(x) + 1
@dataclasses.dataclass
class Point:
    x: int
    y: list = dataclasses.field(default_factory=list)
class Colour(enum.Enum):
    RED = 1
assert remote(Tool(2).use, 5) == 110
assert remote(Child(2).use, 5) == 111
made = remote(Child.make)
assert type(made) is Child and made.k == 5
assert remote(lambda t: (t.twice, t.zero()), Tool(4)) == (8, 0)
point = remote(lambda p: Point(p.x + 1, [p]), Point(1))
assert point == Point(2, [Point(1)]) and type(point) is Point
assert remote(lambda: Colour.RED) is Colour.RED
original = Tool.use
assert remote(lambda t: t, Tool(1)).k == 1
assert Tool.use is original
Tool.use = lambda self, x: -1
assert remote(Tool(2).use, 5) == -1
Tool.extra = 7
assert remote(lambda t: t.extra, Tool(1)) == 7
""",
    "an exception class of the script": """
class Trouble(Exception):
    def __init__(self, code, *, why):
        super().__init__(f"trouble {code}")
        self.code, self.why = code, why
def fail(code):
    note = "before"
    raise Trouble(code, why="because")
try:
    remote(fail, 3)
except Trouble as error:
    assert isinstance(error, RemoteError)
    assert (error.code, error.why, error.ename, error.evalue) == (3, "because", "Trouble", "trouble 3")
    text = str(error)
    assert text.startswith("Trouble(trouble 3)\\non engine 0:\\nTraceback (most recent call last):\\n"), text
    assert '    raise Trouble(code, why="because")' in text, text
    assert "enginery" not in text, text
else:
    raise AssertionError
""",
    "an exception class that only the engine has": """
code = '''
class Theirs(Exception):
    pass
'''
def define(source):
    import sys, types
    module = sys.modules["theirs"] = types.ModuleType("theirs")
    exec(source, vars(module))
def fail():
    import theirs
    raise theirs.Theirs("x")
remote(define, code)
try:
    remote(fail)
except RemoteError as error:
    assert type(error) is RemoteError
    assert (error.ename, error.evalue) == ("Theirs", "x")
    assert error.__cause__ is None
else:
    raise AssertionError
""",
    "exits and what cannot be pickled": """
import sys, threading
for function, name in (
    (lambda: sys.exit(3), "SystemExit"),
    (lambda: threading.Lock(), "TypeError"),
    (lambda: (_ for _ in ()).throw(KeyboardInterrupt()), "KeyboardInterrupt"),
):
    try:
        remote(function)
    except RemoteError as error:
        assert error.ename == name, error
    else:
        raise AssertionError(name)
assert remote(lambda: 1) == 1
""",
    "functions as results and as arguments": """
base = 1
def twice(f, x):
    return f(f(x))
def inc(x):
    return x + step()
def step():
    return 1
assert remote(twice, inc, 0) == 2
adder = remote(lambda n: (lambda x: x + n + base), 10)
assert adder(5) == 16
assert adder.__globals__ is globals()
""",
    "registered types": """
import fractions, math
from enginery.objects.serializers import register_serializer
def parts(fraction):
    return [math.floor(x) for x in (fraction.numerator, fraction.denominator)]
def reduce(fraction):
    return parts(fraction)
def rebuild(got):
    return fractions.Fraction(got[0] + 1000 * got[1], got[1])
assert remote(lambda: fractions.Fraction(1, 2)) == fractions.Fraction(1, 2)
register_serializer(fractions.Fraction, reduce, rebuild)
# The engine has seen no value of the type, only a function: its result travels the new way.
assert remote(lambda: fractions.Fraction(1, 2)) == 1000 + fractions.Fraction(1, 2)
assert remote(lambda x: str(x[0]), [fractions.Fraction(1, 2)]) == "2001/2"
assert remote(lambda x: x, fractions.Fraction(1, 2)) == 2000 + fractions.Fraction(1, 2)
class Box:
    def __init__(self, x):
        self.x = x
    def __reduce__(self):
        raise RuntimeError("I stay here")
register_serializer(Box, lambda box: box.x, lambda x: Box(x + 1))
assert remote(lambda: Box(1)).x == 2
assert remote(lambda b: (b.x, [b]), Box(1))[1][0].x == 3
assert type(remote(lambda: Box(1))) is Box
""",
    "other libraries": """
from enginery.objects.libraries import use_cloudpickle, use_pickle
on_engine = 5
def tool(x):
    return x + on_engine
def f(x):
    return tool(x)
assert remote(f, 1) == 101
use_cloudpickle()
assert remote(f, 1) == 6
on_engine = 6
assert remote(lambda g: g(1), f) == 7
remote(use_cloudpickle)
assert remote(lambda: (lambda: on_engine))() == 6
use_pickle()
remote(use_pickle)
assert remote(f, 1) == 101
""",
    "closures": """
def make(n):
    def down(k):
        return n if k == 0 else down(k - 1)
    return down
assert remote(make(3), 4) == 3
assert remote(lambda: make(2)(2)) == 2
""",
    "functions as results bring their helpers": """
code = '''
import math
def helper(x):
    return math.floor(x) + base
def made(x):
    return [helper(y) for y in x]
'''
base = 1
def define(source):
    exec(source, globals())
remote(define, code)
made = remote(lambda: globals()["made"])
assert made([1.5, 2.5]) == [2, 3]
assert "helper" not in globals() and "math" not in globals()
def helper(x):
    return "mine"
assert made([1.5]) == ["mine"]
""",
}


@pytest.mark.parametrize("name", CASES)
def test_between_interpreters(name: str, tmp_path: Path) -> None:
    run(tmp_path, CASES[name])
