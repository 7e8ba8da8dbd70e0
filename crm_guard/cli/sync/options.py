"""The options of `crm-guard sync`, with their help."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from crm_guard.cli.sync.call import Method
from crm_guard.cli.sync.source import Empty, Format

File: TypeAlias = Annotated[
    str, typer.Argument(metavar="FILE|-", help="CSV with the API names of fields as header, or JSON lines.")
]
Url: TypeAlias = Annotated[str, typer.Option(help="Address of CRM: https://www.zohoapis.com.")]
Module: TypeAlias = Annotated[str, typer.Option(help="API name of the module: Leads.")]
Action: TypeAlias = Annotated[Method, typer.Option(help="What to do; update and delete need a column 'id'.")]
TokenEnv: TypeAlias = Annotated[
    str, typer.Option(metavar="NAME", help="Environment variable that holds the access token.")
]
Version: TypeAlias = Annotated[str, typer.Option(help="Version of the API.")]
Kind: TypeAlias = Annotated[
    Format | None, typer.Option("--format", help="Of FILE; by default by its name (.csv, .jsonl, .ndjson).")
]
EmptyCells: TypeAlias = Annotated[
    Empty, typer.Option(help="Leave empty cells of CSV out, or send null, which empties the field.")
]
DuplicateCheck: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="FIELD", help="For upsert: a field to find records by. Repeatable.")
]
Trigger: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="What CRM triggers: workflow, approval, ..., or none. Repeatable."),
]
Workers: TypeAlias = Annotated[int, typer.Option(min=1, max=100, help="Calls at once.")]
BatchSize: TypeAlias = Annotated[int, typer.Option(min=1, max=100, help="Rows in a call.")]
Failed: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="NEW-FILE",
        help="Where to keep the rows that were not written, and why; NEW-FILE.part until the run ends.",
    ),
]
IncludeUncertain: TypeAlias = Annotated[
    bool, typer.Option("--include-uncertain", help="Also send rows that an earlier run left uncertain.")
]
Settings: TypeAlias = Annotated[Path | None, typer.Option(metavar="FILE", help="A TOML file with settings.")]
