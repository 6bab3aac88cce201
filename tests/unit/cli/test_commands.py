"""The commands where nothing runs: options, sentences, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import enginery
from enginery.cli.commands import program
from enginery.cli.exit_codes import exit_code
from enginery.errors import ClusterAlreadyRunning, ClusterNotFound, LaunchError
from enginery.transport.addresses import RUNTIME_VARIABLE, ClusterDirectory

SOURCES = Path(enginery.__file__).parents[1]


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    monkeypatch.setenv(RUNTIME_VARIABLE, str(path))
    return path


@pytest.fixture
def kept(runtime: Path) -> ClusterDirectory:
    """A named cluster that has been stopped."""
    directory = ClusterDirectory("night").create()
    (directory.logs / "host.log").write_text("began\nended\n")
    (directory.logs / "controller.log").write_text("bound\n")
    (directory.logs / "engine-0.log").write_text("")
    return directory


def run(*arguments: str) -> Result:
    return CliRunner().invoke(program, arguments)


def test_nothing_runs(runtime: Path) -> None:
    result = run("list")
    assert (result.exit_code, result.stdout) == (0, "no clusters; start one with:  enginery start -n 4\n")
    assert json.loads(run("list", "-o", "json").stdout) == []


def test_nothing_to_stop(runtime: Path) -> None:
    for arguments in ((), ("--all",)):
        result = run("stop", *arguments)
        assert result.exit_code == 11
        assert result.stderr == "enginery: no cluster is running, so there is nothing to stop\n"


@pytest.mark.parametrize("command", ["stop", "status", "logs", "engine"])
def test_no_such_cluster(runtime: Path, command: str) -> None:
    result = run(command, "lost")
    assert result.exit_code == 12
    assert result.stdout == ""
    assert result.stderr == (
        "enginery: no cluster named 'lost' is running; start it with:  enginery start -n 4 --name lost\n"
    )


@pytest.mark.parametrize("command", ["status", "logs", "engine"])
def test_no_cluster_at_all(runtime: Path, command: str) -> None:
    result = run(command)
    assert result.exit_code == 12
    assert result.stderr == "enginery: no cluster is running; start one with:  enginery start -n 4\n"


def test_a_cluster_that_was_stopped(kept: ClusterDirectory) -> None:
    (row,) = json.loads(run("list", "-o", "json").stdout)
    assert row == {
        "name": "night",
        "state": "stopped",
        "engines": None,
        "pid": None,
        "connection_file": str(kept.connection_file("client")),
    }
    lines = run("list").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["name", "state"], ["night", "stopped"]]
    result = run("stop", "night")
    assert result.exit_code == 11
    assert result.stderr == "enginery: the cluster 'night' is not running\n"


def test_its_logs(kept: ClusterDirectory) -> None:
    wanted = "==> controller <==\nbound\n==> host <==\nbegan\nended\n"
    assert run("logs", "night").stdout == wanted
    assert run("logs").stdout == wanted
    assert run("logs", "night", "-n", "1").stdout == "==> controller <==\nbound\n==> host <==\nended\n"


def test_a_name_that_cannot_be_one(runtime: Path) -> None:
    for arguments in (("start", "--name", "a b"), ("controller", "a b"), ("status", "a b")):
        result = run(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("enginery: 'a b' cannot name a cluster:")


def test_what_click_refuses(runtime: Path) -> None:
    assert run("start", "-n", "-1").exit_code == 2
    assert run("start", "--db", "mongodb").exit_code == 2
    result = run("engine", "night", "--file", "x.json")
    assert result.exit_code == 2
    assert "give one of NAME, --name and --file" in result.stderr


def test_clean_removes_what_is_named(kept: ClusterDirectory) -> None:
    assert run("clean").stdout == ""
    assert kept.path.exists()
    result = run("clean", "night")
    assert (result.exit_code, result.stdout) == (0, "the cluster 'night' is removed\n")
    assert not kept.path.exists()
    assert run("clean", "night").exit_code == 12
    assert run("clean", "--all").stdout == ""


def test_config_shows_what_is_in_force(runtime: Path) -> None:
    settings = json.loads(run("config", "-o", "json").stdout)
    assert settings["version"] == enginery.__version__
    assert settings["runtime_directory"] == str(runtime)
    assert settings["variables"][RUNTIME_VARIABLE] == str(runtime)
    assert f"runtime_directory: {runtime}\n" in run("config").stdout


def test_options_are_the_keywords_of_a_cluster(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(
        "enginery.cli.foreground.start_cluster", lambda *args, **keywords: seen.append((args, keywords)) or 0
    )
    monkeypatch.setattr(
        "enginery.cli.foreground.run_engines", lambda *args, **keywords: seen.append((args, keywords)) or 0
    )
    options = [
        "--ip",
        "*",
        "--port",
        "5",
        "--location",
        "box",
        "--scheme",
        "lru",
        "--hwm",
        "0",
        "--db",
        "memory",
        "--shared-memory-limit",
        "0",
        "--cancel-grace",
        "-1",
    ]
    assert run("start", "-n", "3", "--engines", "local", *options).exit_code == 0
    assert run("engine", "--name", "night", "-n", "2", "--timeout", "3", "-c", "x = 1").exit_code == 0
    controller = {"host": "*", "port": 5, "location": "box", "scheme": "lru", "hwm": 0, "db": "memory"}
    limits = ("record_limit", "payload_limit", "record_age", "payload_age")
    controller |= dict.fromkeys(limits) | {"shared_memory_limit": 0, "cancel_grace": -1.0}
    assert seen == [
        (
            (3, "default"),
            {
                "daemonize": False,
                "engines": "local",
                "durability": "fast",
                "restart": False,
                "restore": False,
                **controller,
            },
        ),
        (("night", 2), {"timeout_s": 3.0, "code": "x = 1", "script": None}),
    ]


def test_an_error_of_ours_has_no_traceback_and_others_keep_theirs(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise LaunchError("the cluster 'x'", "its host exited with code 3", output="no memory")

    monkeypatch.setattr("enginery.cli.foreground.start_cluster", refuse)
    result = run("start")
    assert result.exit_code == 1
    assert result.stderr == (
        "enginery: the cluster 'x' could not be started: its host exited with code 3\n"
        "Its last output:\n    no memory\n"
    )

    def fail(*_: object, **__: object) -> int:
        raise KeyError("a bug")

    monkeypatch.setattr("enginery.cli.foreground.start_cluster", fail)
    assert isinstance(run("start").exception, KeyError)


def test_exit_codes() -> None:
    assert exit_code(ClusterAlreadyRunning("x")) == 10
    assert exit_code(ClusterNotFound("x")) == 12
    assert exit_code(LaunchError()) == 1


def test_python_m_is_the_same_program() -> None:
    command = [sys.executable, "-m", "enginery", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=SOURCES, check=True)
    assert result.stdout == f"enginery, version {enginery.__version__}\n"


def test_help_does_not_import_what_it_does_not_need() -> None:
    code = (
        "import sys; sys.argv = ['enginery', '--help']; from enginery.cli.main import main\n"
        "try: main()\nexcept SystemExit: print(*sys.modules)"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, cwd=SOURCES, check=True)
    assert "Commands:" in result.stdout
    assert not {"zmq", "msgspec", "asyncio", "psutil", "IPython"} & set(result.stdout.split())
