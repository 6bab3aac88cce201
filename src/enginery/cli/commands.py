"""The commands. Heavy rooms are imported by the command that needs them: ``enginery --help`` is quick."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from enginery import registry
from enginery.cli.exit_codes import NOTHING_TO_STOP, exit_code

if TYPE_CHECKING:
    from enginery.transport.discovery import FoundCluster


class Program(click.Group):
    """A group whose errors are sentences on standard error, without tracebacks."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except Exception as error:
            if not _is_for_users(error):
                raise
            notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
            click.echo(f"enginery: {error}{notes}", err=True)
            context.exit(exit_code(error))


def _is_for_users(error: Exception) -> bool:
    from enginery.errors import EngineryError

    if isinstance(error, click.ClickException | click.exceptions.Exit | click.Abort):
        return False
    return isinstance(error, EngineryError | ValueError | TimeoutError)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(registry.find("__version__"), prog_name="enginery")
def program() -> None:
    """Interactive parallel computing: start clusters of engines, look at them, and stop them."""


count_option = click.option(
    "-n", "--n", "count", type=click.IntRange(min=0), help="Number of engines.  [default: one per core]"
)
format_option = click.option(
    "-o", "--output", "output", type=click.Choice(["text", "json"]), default="text", show_default=True
)


def controller_options(command: Any) -> Any:
    """Options of every command that starts a controller."""
    options = (
        click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
        click.option("--port", default=0, help="Port to listen on.  [default: any free one]"),
        click.option("--db", type=click.Choice(["sqlite", "memory"]), default="sqlite", show_default=True),
        click.option(
            "--durability", type=click.Choice(["fast", "strict"]), default="fast", show_default=True
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@program.command()
@count_option
@click.option("--name", default="default", show_default=True, help="Name of the cluster.")
@click.option("--daemonize", is_flag=True, help="Return when all engines have answered; the cluster goes on.")
@controller_options
def start(count: int | None, name: str, daemonize: bool, **controller: Any) -> None:
    """Start a cluster on this machine.

    It runs until Ctrl-C, or, with --daemonize, until `enginery stop`.
    """
    from enginery.cli.foreground import start_cluster

    sys.exit(start_cluster(count, name, daemonize=daemonize, **controller))


@program.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "every", is_flag=True, help="Stop all clusters of this user.")
def stop(names: tuple[str, ...], every: bool) -> None:
    """Stop clusters: those named, or the only one that runs (or `default`)."""
    from enginery.cluster.control import end_cluster

    ended = False
    for cluster in _clusters_to_stop(names, every):
        if end_cluster(cluster.directory):
            click.echo(f"the cluster {cluster.name!r} is stopped")
            ended = True
        else:
            click.echo(f"enginery: the cluster {cluster.name!r} is not running", err=True)
    if not ended:
        if not names:
            click.echo("enginery: no cluster is running, so there is nothing to stop", err=True)
        sys.exit(NOTHING_TO_STOP)


def _clusters_to_stop(names: tuple[str, ...], every: bool) -> list[FoundCluster]:
    from enginery.cli.listing import find_named
    from enginery.errors import ClusterNotFound
    from enginery.transport.discovery import ClusterState, find_clusters

    if names:
        return [find_named(name) for name in names]
    clusters = find_clusters()
    running = [cluster for cluster in clusters if cluster.state is ClusterState.RUNNING]
    stale = [cluster for cluster in clusters if cluster.state is ClusterState.STALE]
    if every or len(running) < 2:
        # Those whose controller was killed have nothing to stop but files to take away.
        return running + (stale if every else [])
    default = [cluster for cluster in running if cluster.name == "default"]
    if not default:
        raise ClusterNotFound(running=[cluster.name for cluster in running])
    return default


@program.command("list")
@format_option
def list_clusters(output: str) -> None:
    """List this user's clusters on this machine."""
    from enginery.cli.listing import describe_all
    from enginery.cli.output import print_json, print_table

    rows = describe_all()
    if output == "json":
        print_json(rows)
    elif rows:
        print_table(rows, {key: key for key in ("name", "state", "engines", "pid", "connection_file")})
    else:
        click.echo("no clusters; start one with:  enginery start -n 4")


@program.command()
@click.argument("name", required=False)
@format_option
def status(name: str | None, output: str) -> None:
    """Show what a cluster is doing."""
    from enginery.cli.output import print_json, print_status, status_as_dict
    from enginery.cluster import control
    from enginery.transport.connection_file import load
    from enginery.transport.discovery import locate

    answer = status_as_dict(control.status(load(locate(name))))
    if output == "json":
        print_json(answer)
    else:
        print_status(answer)


@program.command()
@click.argument("name", required=False)
@click.option("-n", "--lines", type=click.IntRange(min=1), help="Only the last lines of each log.")
def logs(name: str | None, lines: int | None) -> None:
    """Print the logs of a cluster, running or stopped."""
    from enginery.cli.listing import read_logs

    for title, text in read_logs(name, lines):
        click.echo(f"==> {title} <==\n{text}")


@program.command()
@click.argument("name", default="default")
@controller_options
def controller(name: str, **options: Any) -> None:
    """Run a controller alone, in the foreground; engines join it with `enginery engine`."""
    from enginery.cli.foreground import run_controller_alone

    sys.exit(run_controller_alone(name, **options))


@program.command()
@click.argument("name", required=False)
@count_option
@click.option("--file", "path", help="A connection file of the cluster (host.json), instead of NAME.")
def engine(name: str | None, count: int | None, path: str | None) -> None:
    """Add engines to a running cluster; they end with this command."""
    from enginery.cli.foreground import run_engines

    if name and path:
        raise click.UsageError("give NAME or --file, not both")
    sys.exit(run_engines(path or name, count))
