"""What the commands read off a command line: which index, which filter, which renderer; and the Retriever they open."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ingest.document import Limits
    from retriever.engine import Retriever

F = TypeVar("F", bound=Callable[..., Any])

CODECS = ("fp16", "int8", "int4", "binary")  # those of index.codec, which --help need not load
_CONDITION = re.compile(r"\s*([\w.$-]+)\s*(>=|<=|!=|=|>|<)\s*(.*)", re.DOTALL)
_OPERATORS = {"=": "$eq", "!=": "$ne", ">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}


def home() -> Path:
    """Where indexes live that are called by a bare name."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "octavo"


def place(index: str | None) -> Path:
    """The folder of an index, of $OCTAVO_INDEX or "default" where none is given.

    A path where it has a separator or is a folder here, else a name in `home()`.
    """
    index = index or os.environ.get("OCTAVO_INDEX") or "default"
    path = Path(index).expanduser()
    named = os.sep not in index and "/" not in index and not index.startswith((".", "~"))
    return home() / index if named and not path.is_dir() else path


def where(conditions: Sequence[str]) -> dict[str, Any] | None:
    """Filters as written on the command line, all of which must hold: JSON objects, or field=value with = != > >= < <=.

    A value is read as JSON where it is JSON (2023, true, "2023"), else as text. Raises click.BadParameter.
    """
    clauses: list[dict[str, Any]] = []
    for condition in conditions:
        if condition.lstrip().startswith("{"):
            clauses.append(json_object(condition, "--where"))
            continue
        match = _CONDITION.fullmatch(condition)
        if not match:
            raise click.BadParameter(f"{condition!r} is neither field=value (= != > >= < <=) nor a JSON object")
        field, operator, text = match.groups()
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except ValueError:
            value = text
        clauses.append({field: {_OPERATORS[operator]: value}})
    return None if not clauses else clauses[0] if len(clauses) == 1 else {"$and": clauses}


def json_object(text: str, option: str) -> dict[str, Any]:
    """Raises click.BadParameter for what is not a JSON object."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise click.BadParameter(f"{option} is not JSON ({error}): {text}") from None
    if not isinstance(value, dict):
        raise click.BadParameter(f'{option} is {text}; a JSON object is expected, such as {{"year": 2023}}')
    return value


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def limits(settings: Sequence[str]) -> Limits | None:
    """`ingest.document.Limits` from name=number, None where nothing is set. Raises click.BadParameter."""
    from ingest.document import Limits

    changed: dict[str, Any] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        default = Limits._field_defaults.get(name.strip())
        try:
            changed[name.strip()] = type(default)(text) if default is not None else None
        except ValueError:
            changed[name.strip()] = None
        if not changed[name.strip()] or not changed[name.strip()] > 0:
            known = ", ".join(f"{field}={value:g}" for field, value in Limits._field_defaults.items())
            raise click.BadParameter(f"{setting!r} sets no limit; they are, with what they are now, {known}")
    return Limits(**changed) if changed else None


def common(command: F) -> F:
    """--index and --json, which every command has."""
    command = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)
    return click.option(
        "--index",
        metavar="NAME|PATH",
        help="The index: a name, or a folder's path. Default: $OCTAVO_INDEX, else the name 'default'.",
    )(command)


def chosen(index: str | None) -> Path:
    """The folder of a command's --index, else of the --index before the command, else as `place` says."""
    return place(index or click.get_current_context().obj)


@contextmanager
def opened(index: str | None, create: bool = False, **options: Any) -> Iterator[Retriever]:
    """The Retriever of a command."""
    from retriever.engine import Retriever

    with Retriever.open(chosen(index), create=create, **options) as retriever:
        yield retriever


def reading_options(command: F) -> F:
    """--renderer and --limit, of the commands that read files."""
    command = click.option(
        "--limit", "limit", multiple=True, metavar="NAME=NUMBER", help="What a document may cost: page_seconds=30, ..."
    )(command)
    choice = click.Choice(["pymupdf", "pdfium"])
    return click.option("--renderer", type=choice, default="pymupdf", show_default=True, help="What draws PDFs.")(
        command
    )


def password_option(command: F) -> F:
    return click.option("--password", envvar="OCTAVO_PASSWORD", help="Of encrypted PDFs; also $OCTAVO_PASSWORD.")(
        command
    )
