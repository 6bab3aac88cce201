"""The magics: what is sent where, what is shown, what each option changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from enginery.client.results.async_result import AsyncResult
from enginery.errors import AlreadyDisplayedError, ClientClosed, CompositeError, NoSuchEngine
from tests.unit.frontends.site import Site

USAGE = "UsageError: "


@pytest.fixture(autouse=True)
def active(site: Site) -> None:
    site.rc.activate()


# ---------------------------------------------------------------- what is shown


def test_a_line(site: Site) -> None:
    site.expect(0, 1, 2, value="2")
    assert site.run("%px 1 + 1") == "Out[0-2:1]: 2\n"
    assert site.session.submissions[-1].options.name == "execute"
    site.expect(0, value="'a'", count=5)
    site.expect(1, 2, value="'a'", count=4)
    assert site.run("%px c") == "Out[0:5;1,2:4]: 'a'\n"


def test_outputs_that_differ_have_tags_of_their_own(site: Site) -> None:
    site.expect(0, stdout="0\n", value="10")
    site.expect(1, stdout="1\n", value="11", stderr="oh\n")
    site.expect(2, stdout="0\n", value="11")
    assert site.run("%%px\nprint(x)\ny") == "[stdout:0,2] 0\n[stdout:1] 1\nOut[0:1]: 10\nOut[1,2:1]: 11\n"
    assert site.err == "[stderr:1] oh\n"


@pytest.mark.parametrize("options", ["", "--no-stream", "-e", "-r", "--group-outputs=type"])
def test_no_fold_shows_each_engine(site: Site, options: str) -> None:
    site.expect(0, 1, 2, stdout="hi\n")
    said = "".join(f"[stdout:{engine}] hi\n" for engine in range(3))
    assert site.run(f"%%px --no-fold {options}\nprint('hi')") == said


def test_grouped_by_engine(site: Site) -> None:
    for options in ("-e", "--group-outputs=engine"):
        site.expect(0, stdout="a\nb\n", value="1")
        site.expect(1, stdout="c\n")
        site.expect(2, stdout="a\nb\n", value="1")
        assert site.run(f"%%px {options}\nf()") == "[stdout:0,2]\na\nb\nOut[0,2:1]: 1\n[stdout:1] c\n"


def test_rich_values(site: Site) -> None:
    rich = {"text/plain": "<T>", "text/html": "<b>T</b>"}
    site.expect(0, 1, 2, data=rich)
    assert site.run("%px t") == "Out[0-2:1]: <T>\n"
    site.be_a_kernel()
    site.expect(0, 1, 2, data=rich)
    assert site.run("%px t") == "Out[0-2:1]:\nOut[0-2:1]: <T>\n", "something richer takes the text's place"
    site.shell.display_formatter.active_types = ["text/plain"]
    assert site.run("%pxresult") == "Out[0-2:1]: <T>\n"


def test_verbose(site: Site) -> None:
    site.expect(*range(3), *range(3), *range(3), 1)
    assert site.run("%%px --verbose\nx") == "Parallel execution on engine(s): all\n"
    assert site.run("%pxconfig --verbose") == ""
    assert site.run("%px x") == "Parallel execution on engine(s): all\n"
    assert site.run("%%px --no-verbose\nx") == ""
    assert site.run("%px --targets 1 --noblock x").startswith("Async parallel execution on engine(s): 1\n")


# ---------------------------------------------------------------- errors


def test_errors_of_a_stream_are_shown_once(site: Site) -> None:
    site.expect(0, error=ValueError("no"))
    site.expect(1, stdout="fine\n", value="1")
    site.expect(2, error=ValueError("no"))
    assert site.run("%px f()") == "[stdout:1] fine\nOut[1:1]: 1\n2 errors\n"
    assert site.err == "engines 0, 2: ValueError(no)\nValueError: no\n"
    error = site.result.error_in_exec
    assert isinstance(error, AlreadyDisplayedError)
    assert isinstance(error.original_error, CompositeError)


def test_errors_without_a_stream(site: Site) -> None:
    site.expect(0, 1, 2, error=ValueError("no"), stdout="before\n")
    assert site.run("%%px --no-stream\nf()") == (
        "[stdout:0-2] before\n3 of 3 calls of execute failed\n\nengines 0-2: ValueError(no)\nValueError: no\n"
    )
    assert isinstance(site.result.error_in_exec, CompositeError)


def test_an_error_of_one_engine_is_of_its_own_type(site: Site) -> None:
    site.rc.activate(1, "_one")
    site.expect(1, error=SyntaxError("invalid syntax"))
    assert site.run("%%px_one --no-stream\nx = = 1") == "on engine 1:\nSyntaxError: invalid syntax\n"
    assert isinstance(site.result.error_in_exec, SyntaxError)


def test_a_handler_of_errors_that_is_there_stays(site: Site) -> None:
    def show(shell: object, *error: object, tb_offset: object = None) -> None:
        shown.append(error[0])

    shown: list[object] = []
    site.shell.set_custom_exc((CompositeError,), show)
    site.rc.activate()
    site.expect(0, 1, 2, error=ValueError("no"))
    site.run("%%px --no-stream\nf()")
    assert shown == [CompositeError]


def test_wrong_options(site: Site) -> None:
    for cell, text in {
        "%%px --nope\n1": "unrecognized arguments: --nope",
        "%%px -t x\n1": "targets are an engine's id, ids with commas such as 0,2, a slice such as ::2, or "
        "all; not 'x'",
        "%%px --signal-on-interrupt SIGX\n1": "there is no signal 'SIGX' here; give a name such as 'SIGINT'",
        "%%px -o 1a\n1": "--out needs the name of a variable, not '1a'",
        "%px": "%px needs a line to run on the engines",
        "%px --noblock": "%px needs a line to run on the engines",
        "%autopx on": "%autopx has no options; set them with %pxconfig",
        "%pxresult": "there is no result yet; run something with %px first",
    }.items():
        assert site.run(cell) == ""
        assert site.err == f"{USAGE}{text}\n"
    assert site.sent == []


# ---------------------------------------------------------------- where


def test_targets_of_a_cell(site: Site) -> None:
    for options, engines in {
        "-t 1": (1,),
        "--targets=-1": (2,),
        "-t ::2": (0, 2),
        "-t 2,0": (2, 0),
        "--targets all": (0, 1, 2),
        "": (0, 1, 2),
    }.items():
        site.expect(*engines)
        site.run(f"%%px {options}\nx")
        assert site.sent[-1] == engines


def test_the_targets_set_are_another_view(site: Site) -> None:
    view = site.rc[:]
    view.set_flags(label="mine", priority=3)
    view.activate()
    site.run("%pxconfig --targets 0,2")
    site.expect(0, 2)
    site.run("%px x")
    assert site.sent == [(0, 2)]
    assert site.session.submissions[-1].options.label == "mine"
    assert site.session.submissions[-1].options.priority == 3
    assert view.targets == [0, 1, 2]


def test_an_engine_that_is_not_there(site: Site) -> None:
    site.run("%%px -t 7\nx")
    assert isinstance(site.result.error_in_exec, NoSuchEngine)
    assert site.sent == []


def test_each_suffix_has_magics_of_its_own(site: Site) -> None:
    few = site.rc.activate([0, 1], "_few")
    assert few.targets == [0, 1]
    site.run("%pxconfig_few --noblock")
    site.expect(0, 1, 0, 1, 2)
    site.run("%px_few x")
    site.run("%px x")
    assert site.sent == [(0, 1), (0, 1, 2)]
    assert site.run("%pxresult_few") == ""
    with pytest.raises(ValueError, match="a suffix is the end of a magic's name, like '_gpu'"):
        site.rc.activate(suffix="-x")
    assert site.shell.find_line_magic("result") is not None
    assert site.shell.find_line_magic("result_few") is None


# ---------------------------------------------------------------- when


def test_not_blocking(site: Site) -> None:
    site.session.is_held = True
    site.expect(0, 1, 2, value="3")
    assert site.run("%%px --noblock -o later\n1 + 2").startswith("Out[1]: <AsyncResult: execute: waiting, ")
    assert isinstance(site.shell.user_ns["later"], AsyncResult)
    assert site.shell.user_ns["later"] is site.result.result
    site.session.is_held = False
    assert site.run("%pxresult -o again") == "Out[0-2:1]: 3\n"
    assert site.run("%result --no-fold") == "Out[0:1]: 3\nOut[1:1]: 3\nOut[2:1]: 3\n"
    assert site.shell.user_ns["again"] is site.shell.user_ns["later"]


def test_the_view_says_whether_to_block_until_the_magics_are_told(site: Site) -> None:
    view = site.rc.activate()
    site.expect(*range(3), *range(3), *range(3))
    view.block = False
    site.run("%px x")
    assert isinstance(site.result.result, AsyncResult)
    site.run("%pxconfig --block")
    assert view.block is False
    site.run("%px x")
    assert site.result.result is None
    site.run("%%px -a\nx")
    assert isinstance(site.result.result, AsyncResult)


def test_here_too(site: Site) -> None:
    site.expect(0, 1, 2, value="'there'", count=9)
    assert site.run("%%px --local -o ar\nx = 'here'\nx") == "Out[1]: 'here'\nOut[0-2:9]: 'there'\n"
    assert site.shell.user_ns["x"] == "here"
    site.expect(0, 1, 2)
    assert site.run("%%px --local\n1/0").endswith("ZeroDivisionError: division by zero\n1 error\n")
    assert isinstance(site.result.error_in_exec, AlreadyDisplayedError)


def test_nothing_is_expanded_in_what_engines_run(site: Site) -> None:
    site.shell.user_ns["x"] = 5
    site.expect(0, 1, 2, 1)
    site.run("%px print('{x} $x')")
    assert b"{x} $x" in site.session.submissions[-1].payload
    site.run("%%px -t {x - 4}\nprint('{x}')")
    assert site.sent[-1] == (1,)
    assert b"{x}" in site.session.submissions[-1].payload


# ---------------------------------------------------------------- all cells


def test_autopx(site: Site) -> None:
    assert site.run("%autopx") == "%autopx enabled\n"
    site.expect(*range(3), *range(3), *range(3), value="7")
    for cell in ("x", "await x", "!ls\nthis: is no Python"):
        assert site.run(cell) == "Out[0-2:1]: 7\n"
        assert cell.encode() in site.session.submissions[-1].payload
    assert site.run("%pxresult") == "Out[0-2:1]: 7\n"
    site.expect(1, value="8")
    assert site.run("%%px -t 1 --local\ny = 8\ny") == "Out[6]: 8\nOut[1:1]: 8\n"
    assert site.run("%autopx") == "%autopx disabled\n"
    assert site.run("y") == "Out[8]: 8\n"
    assert "run_cell_async" not in vars(site.shell)


def test_one_autopx_ends_the_other(site: Site) -> None:
    site.rc[1].activate("_one")
    assert site.run("%autopx") == "%autopx enabled\n"
    assert site.run("%autopx_one") == "%autopx_one enabled\n"
    site.expect(1)
    site.run("x")
    assert site.sent == [(1,)]
    assert site.run("%autopx_one") == "%autopx_one disabled\n"
    assert site.run("2") == "Out[5]: 2\n"


def test_autopx_ends_with_its_magics(site: Site) -> None:
    site.run("%autopx")
    site.rc.activate()
    assert site.run("2") == "Out[2]: 2\n"


def test_silent_code_of_front_ends_is_run_here(site: Site) -> None:
    site.run("%autopx")
    site.shell.run_cell("z = 3", silent=True)
    assert site.shell.user_ns["z"] == 3
    assert site.sent == []


# ---------------------------------------------------------------- help, ends


def test_help_has_the_options(site: Site) -> None:
    text = site.shell.find_cell_magic("px").__doc__
    for option in (
        "--noblock",
        "--targets",
        "--local",
        "--out",
        "--no-stream",
        "--progress-after",
        "--no-fold",
    ):
        assert option in text
    assert text.startswith("::\n\n  %px [-b] [-a]")


def test_after_the_end_of_the_client(site: Site) -> None:
    site.rc.close()
    site.run("%px x")
    assert isinstance(site.result.error_in_exec, ClientClosed)


def test_the_old_path(tmp_path: Path) -> None:
    from enginery.client import magics
    from enginery.frontends.magics import ParallelMagics

    assert magics.ParallelMagics is ParallelMagics
