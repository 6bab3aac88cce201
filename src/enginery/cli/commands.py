"""The commands. Heavy rooms are imported by the command that needs them: ``enginery --help`` is quick."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from enginery import registry
from enginery.cli.exit_codes import ALREADY_RUNNING, NOTHING_TO_STOP, exit_code
from enginery.cluster.settings import DATABASES, SCHEMES

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
        click.option("--host", "--ip", default="127.0.0.1", show_default=True, help="Address to listen on."),
        click.option(
            "--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on.  [default: any free]"
        ),
        click.option("--location", help="Name or address under which other machines reach this one."),
        click.option(
            "--scheme",
            type=click.Choice(SCHEMES),
            default="leastload",
            show_default=True,
            help="How an engine is chosen for a balanced task.",
        ),
        click.option(
            "--hwm",
            type=click.IntRange(min=0),
            help="Balanced tasks in an engine at a time, 0 = no bound.  [default: as their durations ask]",
        ),
        click.option("--db", type=click.Choice(DATABASES), default="sqlite", show_default=True),
        click.option(
            "--durability", type=click.Choice(["fast", "strict"]), default="fast", show_default=True
        ),
        click.option("--record-limit", type=click.IntRange(min=0), help="Ended tasks that are remembered."),
        click.option(
            "--payload-limit",
            type=click.IntRange(min=0),
            help="Bytes of their calls, results and text that are kept.",
        ),
        click.option("--record-age", type=click.FloatRange(min=0), help="Seconds they are remembered for."),
        click.option("--payload-age", type=click.FloatRange(min=0), help="The same for what they hold."),
        click.option(
            "--shared-memory-limit",
            type=click.IntRange(min=0),
            help="Bytes of shared memory for each process, 0 = none.  [default: half of what there is]",
        ),
        click.option(
            "--cancel-grace",
            type=float,
            default=5.0,
            show_default=True,
            help="Seconds an engine may take to end a cancelled task before it is replaced; -1 = for ever.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@program.command()
@count_option
@click.option("--name", default="default", show_default=True, help="Name of the cluster.")
@click.option("--engines", default="local", show_default=True, help="What starts the engines.")
@click.option("--restart", is_flag=True, help="Start the controller again if it dies.")
@click.option(
    "--restore",
    metavar="NAME",
    help="Go on where the controller of this cluster was killed; instead of --name.",
)
@click.option("--daemonize", is_flag=True, help="Return when all engines have answered; the cluster goes on.")
@controller_options
def start(count: int | None, name: str, daemonize: bool, restore: str | None, **keywords: Any) -> None:
    """Start a cluster on this machine.

    It runs until Ctrl-C, or, with --daemonize, until `enginery stop`. SIGUSR1 and SIGUSR2 are passed on to
    the engines. If all of them die within 30 s, the cluster ends with what they wrote last.
    """
    from enginery.cli.foreground import start_cluster

    is_restored = restore is not None
    sys.exit(start_cluster(count, restore or name, daemonize=daemonize, restore=is_restored, **keywords))


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
    from enginery.cli.output import print_json, print_rich
    from enginery.cluster import control
    from enginery.transport.connection_file import load
    from enginery.transport.discovery import locate

    found = control.whole_status(load(locate(name)))
    if output == "json":
        print_json(found.to_dict())
    else:
        print_rich(found)


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
def controller(name: str, **keywords: Any) -> None:
    """Run a controller alone, in the foreground; engines join it with `enginery engine`."""
    from enginery.cli.foreground import run_controller_alone

    sys.exit(run_controller_alone(name, **keywords))


@program.command()
@click.argument("name", required=False)
@click.option("--name", "named", help="The same as NAME.")
@count_option
@click.option("--file", "path", help="A connection file of the cluster, instead of NAME.")
@click.option("--timeout", default=0.0, help="Seconds to wait for the cluster to be there.  [default: 0]")
@click.option("-c", "code", help="Code that each engine runs before its first task.")
@click.option("-s", "script", type=click.Path(exists=True, dir_okay=False), help="A script to run likewise.")
def engine(
    name: str | None, named: str | None, count: int | None, path: str | None, timeout: float, **startup: Any
) -> None:
    """Add engines to a running cluster; they end with this command."""
    from enginery.cli.foreground import run_engines

    given = [one for one in (name, named, path) if one]
    if len(given) > 1:
        raise click.UsageError("give one of NAME, --name and --file")
    sys.exit(run_engines(given[0] if given else None, count, timeout_s=timeout, **startup))


@program.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "every", is_flag=True, help="All clusters of this user.")
@click.option("--force", is_flag=True, help="Those that run too; they are stopped first.")
def clean(names: tuple[str, ...], every: bool, force: bool) -> None:
    """Remove history and logs of clusters that have ended.

    Without a name or --all, only what clusters that ended without saying so have left.
    """
    from enginery.cli.cleaning import clean_clusters, clean_stale

    removed, running = clean_clusters(names, force=force) if names or every else (clean_stale(), [])
    for name in removed:
        click.echo(f"the cluster {name!r} is removed")
    for name in running:
        click.echo(
            f"enginery: the cluster {name!r} is running; use --force, or stop it with:  enginery stop {name}",
            err=True,
        )
    sys.exit(ALREADY_RUNNING if running else 0)


@program.command()
@format_option
def config(output: str) -> None:
    """Show what is in force: where clusters live, how processes are started, which variables are set."""
    from enginery.cli.listing import describe_configuration
    from enginery.cli.output import print_json

    settings = describe_configuration()
    if output == "json":
        print_json(settings)
        return
    for key, value in settings.items():
        click.echo(f"{key}: {value}")
