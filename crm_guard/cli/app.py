"""The commands and their options. The other modules of this package implement them."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from crm_guard import SettingsError, __version__
from crm_guard.cli.demo import MOST_RECORDS, MOST_ROWS, Demo, run_demo
from crm_guard.cli.demo.plan import FEWEST_RECORDS
from crm_guard.cli.effective import run_settings
from crm_guard.cli.explain import Question, read_source, read_text, run_explain
from crm_guard.cli.help import run_help
from crm_guard.cli.plain import CommandError
from crm_guard.cli.simulate import Simulation, run_simulate
from crm_guard.cli.sync import Sync, options, run_sync
from crm_guard.cli.sync.call import DEFAULT_VARIABLE, Target
from crm_guard.cli.sync.source import Empty
from crm_guard.simulator import served_calls

_USAGE_ERROR: Final = 2
_INTERRUPTED: Final = 130

app = typer.Typer(
    name="crm-guard",
    help="Wait out Zoho CRM's transient record locks, and explain its other refusals.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def run(arguments: Sequence[str] | None) -> int:
    """Run the command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # an unencodable character must not end a command
    try:
        return int(app(arguments, prog_name="crm-guard", standalone_mode=False) or 0)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit would fail again
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", _INTERRUPTED)
    except CommandError as error:
        return _complain(str(error), error.status)
    except SettingsError as error:
        return _complain(str(error), _USAGE_ERROR)
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's usage errors; their base class is not exported
            raise
        return _complain(f"{_discreet(error.format_message()).rstrip('.')}. Try 'crm-guard --help'.", _USAGE_ERROR)


def _discreet(text: str) -> str:
    """Return typer's message on one line, or a generic one if it may quote a URL that holds a password."""
    return "invalid argument" if "://" in text or "@" in text else " ".join(text.split())


def _complain(text: str, status: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"crm-guard: {text}\n")
    return status


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"crm-guard {__version__}")
        raise typer.Exit


def _print_served(asked: bool) -> None:
    if asked:
        for call in served_calls():
            typer.echo(str(call))
        typer.echo('Any other call gets the error of CRM for an unknown one, which then says "not simulated".')
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Wait out Zoho CRM's transient record locks, and explain its other refusals."""


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Seed of the locks, their durations and the order of the jobs.")] = 1,
    records: Annotated[
        int,
        typer.Option(
            min=FEWEST_RECORDS, max=MOST_RECORDS, help="Number of single-record jobs; three batches are added."
        ),
    ] = 20,
    rows: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="Number of rows of the bulk update.")] = 3000,
    speed: Annotated[
        float, typer.Option(min=0.2, max=1000, help="Divides the durations of locks and waits: 2 is twice as fast.")
    ] = 1.0,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Serve Prometheus metrics meanwhile, and print them at the end.")
    ] = False,
    json: _Json = False,
) -> int:
    """Run many jobs against a simulated CRM, and check that every record was written exactly once.

    The exit status is 0 only if every check passed. The end says what would have happened without the guard.
    """
    return run_demo(Demo(seed=seed, records=records, rows=rows, speed=speed, metrics=metrics), as_document=json)


@app.command()
def explain(
    answer: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|-|CODE]", help="The text; by default standard input. Or a code: RECORD_LOCKED."
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(help="HTTP method of the call.")] = None,
    path: Annotated[str | None, typer.Option(help="Path or URL of the call: /crm/v8/Leads/123.")] = None,
    status: Annotated[int | None, typer.Option(min=100, max=599, help="HTTP status of the response.")] = None,
    request: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Body of the request, to identify records by their index."),
    ] = None,
    state: Annotated[
        str | None, typer.Option(help="The record's $approval_state, if known: zia_vision_rejected.")
    ] = None,
    json: _Json = False,
) -> None:
    """Explain what CRM's responses mean for each record, and what to do about it.

    Understands JSON, JSON lines, Python reprs, log lines, exception texts and tracebacks, the output of `curl -i`
    and `curl -v`, HAR files, Markdown, encoded and truncated bodies, and a code alone. Several responses give
    several explanations. The exit status is 2 if there is none that can be read.
    """
    question = Question(
        answer=read_source(answer),
        method=method,
        path=path,
        status=status,
        request=read_text(request) if request else None,
        state=state,
    )
    run_explain(question, as_document=json)


@app.command()
def sync(
    file: options.File,
    url: options.Url,
    module: options.Module,
    method: options.Action,
    token_env: options.TokenEnv = DEFAULT_VARIABLE,
    version: options.Version = "v8",
    kind: options.Kind = None,
    empty: options.EmptyCells = Empty.OMIT,
    duplicate_check: options.DuplicateCheck = None,
    trigger: options.Trigger = None,
    workers: options.Workers = 4,
    batch_size: options.BatchSize = 100,
    failed: options.Failed = None,
    include_uncertain: options.IncludeUncertain = False,
    settings: options.Settings = None,
    json: _Json = False,
) -> int:
    """Write the rows of a file to CRM; locked rows wait and hold back no others.

    The exit status is 0 only if every row was written, 1 if some were not, 2 for bad usage or a bad file, 130 after
    Ctrl-C. Columns that begin with _ are not sent, so the file of --failed can be synced as it is.
    """
    target = Target(url, module, method, version, tuple(duplicate_check or ()), tuple(trigger or ()))
    order = Sync(
        file=file,
        target=target,
        token_env=token_env,
        kind=kind,
        empty=empty,
        workers=workers,
        batch_size=batch_size,
        failed=failed,
        include_uncertain=include_uncertain,
        settings=settings,
    )
    return run_sync(order, as_document=json)


@app.command()
def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 picks a free one.")] = 8070,
    host: Annotated[
        str,
        typer.Option(help="Address or name to listen on; whoever reaches it may read and change everything."),
    ] = "127.0.0.1",
    seed: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Start state, in JSON or (a .toml file) TOML: options, records, faults and refuse_new, as"
            " /__simulator describes them. Options given here go before those in the file.",
        ),
    ] = None,
    records: Annotated[
        int | None,
        typer.Option(min=0, max=1000, help="Sample Leads in each state: 2 by default, none with --seed."),
    ] = None,
    locked_for: Annotated[float, typer.Option(min=0, help="Seconds for which locked samples stay locked.")] = 60.0,
    upload_check: Annotated[
        float | None, typer.Option(min=0, help="Seconds that Zia checks an upload: 10 by default.")
    ] = None,
    latency: Annotated[
        float | None, typer.Option(min=0, help="Seconds added to every call: none by default.")
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="The only accepted access token; by default any is accepted.")
    ] = None,
    api_credits: Annotated[
        int | None, typer.Option("--credits", min=0, help="Remaining API credits; unlimited by default.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Concurrent calls above which CRM answers 429; unlimited by default.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not log calls.")] = False,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print one line of JSON with url and control once it answers; nothing else."),
    ] = False,
    _served: Annotated[
        bool,
        typer.Option("--served", callback=_print_served, is_eager=True, help="List the calls that it answers."),
    ] = False,
) -> None:
    """Run a simulated CRM on 127.0.0.1 until Ctrl-C or SIGTERM.

    Tests in any language set its state and read what happened: `curl http://127.0.0.1:8070/__simulator` tells how.
    """
    options = {
        "validation_seconds": upload_check,
        "latency": latency,
        "token": token,
        "credits": api_credits,
        "concurrency": concurrency,
    }
    order = Simulation(
        host=host,
        port=port,
        seed=seed,
        records=records,
        locked_for=locked_for,
        quiet=quiet,
        options={name: value for name, value in options.items() if value is not None},
    )
    run_simulate(order, as_document=json)


@app.command()
def settings(
    source: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A TOML file with settings.")] = None,
    json: _Json = False,
) -> None:
    """Show the effective settings and the origin of each."""
    run_settings(source, as_document=json)


@app.command("help")
def show_help(
    topic: Annotated[
        str | None, typer.Argument(metavar="[TOPIC]", help="The page; without it, all topics.")
    ] = None,
) -> None:
    """Print a page of the reference, with examples."""
    run_help(topic)
