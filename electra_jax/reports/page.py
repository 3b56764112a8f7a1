"""Render a page from its template, and read the files of a run that pages are made from.

A page is one HTML file that loads nothing: the style sheet is copied into it, and charts are inline SVG. Python
prepares plain data; the templates hold all markup, and the template engine escapes every value.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from etils import epath
from markupsafe import Markup

from electra_jax import json_files
from electra_jax.errors import UserError
from electra_jax.files import replace_file
from electra_jax.run_directory import EVALUATION, METRICS, RESULTS

# The command that writes each file that a page is made from.
_WRITERS = {EVALUATION: "evaluate", METRICS: "pretrain", RESULTS: "finetune"}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The outcome of a run in words: a warning if there are `warnings`, without colour if `plain`, otherwise green."""

    head: str
    text: str
    warnings: Sequence[str] = ()
    plain: bool = False


@dataclasses.dataclass(frozen=True)
class Tile:
    """A key figure.

    Attributes:
        name: the name of the quantity.
        value: the number as shown.
        beside: the number that it must be compared with, in words.
        share: the value in [0, 1] for a bar under the number; None for no bar.
        mark: the position in [0, 1] of the comparison on that bar; None for no mark.
        main: whether a reader should look at this tile first.
    """

    name: str
    value: str
    beside: str
    share: float | None = None
    mark: float | None = None
    main: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text, whose first column names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Making:
    """The origin of a run: its command line, other recorded facts, and the text of its config.gin ("" for none)."""

    command: str
    facts: Mapping[str, Any]
    config: str

    @classmethod
    def of_record(cls, record: Mapping[str, Any], config: str) -> "Making":
        """Separate the command, a string or a list of arguments, from the other facts of a record."""
        facts = dict(record)
        command = facts.pop("command", "")
        return cls(command if isinstance(command, str) else " ".join(map(str, command)), facts, config)


def write_page(path: epath.PathLike, template: str, **data: Any) -> None:
    """Write a page atomically.

    Args:
        path: the file to write.
        template: a file of reports/templates.
        **data: the data that the template shows.
    """
    # A vocabulary learnt from broken text can hold lone surrogates, which UTF-8 cannot encode.
    replace_file(path, render(template, **data).encode("utf-8", "xmlcharrefreplace"))


def render(template: str, **data: Any) -> str:
    """Return the text of a template of reports/templates with `data` filled in and escaped."""
    return _engine().get_template(template).render(data)


@functools.cache
def _engine() -> jinja2.Environment:
    engine = jinja2.Environment(
        loader=jinja2.PackageLoader("electra_jax.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = resources.files("electra_jax.reports").joinpath("style.css").read_text("utf-8")
    engine.globals |= {"stylesheet": Markup(style)}
    engine.filters |= {
        "plain": plain,
        "percent": percent,
        "decimal": decimal,
        "score": score,
        "counted": counted,
        "size": size,
    }
    return engine


def number(values: Mapping[str, Any], name: str) -> float:
    """Return `values[name]` as a float; NaN if it is absent or null."""
    value = values.get(name)
    return math.nan if value is None else float(value)


def percent(value: float) -> str:
    """Format a share as a percentage with one decimal, "–" if it is not finite."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%" if math.isfinite(value) else "–"


def decimal(value: float) -> str:
    """Format a loss or an AUC with three decimals, "–" if it is not finite."""
    return f"{value:.3f}" if math.isfinite(value) else "–"


def score(value: Any) -> str:
    """Format a score in per cent with two decimals, a count without decimals; "–" for None and NaN."""
    if value is None or value != value:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def plain(value: Any) -> str:
    """Format a value of a record for people; "–" if it is not finite, "" for None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:#.4g}"


def counted(count: int, noun: str) -> str:
    """Format a count with its noun, in the plural unless the count is 1."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """Format a number of parameters in words: 3.4 million."""
    for unit, word in ((1e9, "billion"), (1e6, "million")):
        if count >= unit:
            return f"{count / unit:.1f} {word}"
    return f"{count:,.0f}"


def read_text(path: epath.Path) -> str:
    """Return the text of a file that a page requires.

    Raises:
        UserError: if the file does not exist or cannot be read.
    """
    if not path.exists():
        raise UserError(
            f"there is no {path.name} in {path.parent}: run `electra {_WRITERS[path.name]}` with this MODEL_DIR first"
        )
    return json_files.read_text(path)


def read_if_there(path: epath.Path) -> str:
    """Return the text of a file, "" if it does not exist."""
    return json_files.read_text(path) if path.exists() else ""
