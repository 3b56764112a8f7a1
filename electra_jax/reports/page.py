"""What every report is made of: a reader of the files of a run, and the parts that all pages show."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from etils import epath

from electra_jax.errors import UserError
from electra_jax.reports.style import page_html

Rows = list[dict[str, Any]]

# Which verb writes a file that a report is made from.
_WRITERS = {"evaluation.json": "evaluate", "metrics.jsonl": "pretrain", "results.json": "finetune"}


def read_text(path: epath.Path) -> str:
    """The text of a file that a report cannot do without.

    Raises:
      UserError: it is missing; names the verb that writes it.
    """
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise UserError(
            f"There is no {path.name} in {path.parent}, and the report is made from it; run "
            f"`electra {_WRITERS[path.name]}` with this MODEL_DIR first."
        ) from None


def read_if_there(path: epath.Path) -> str:
    """The text of a file, "" if it is missing."""
    return path.read_text("utf-8") if path.exists() else ""


def parse_object(text: str, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
      UserError: it is none; begins with `where`.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error.msg}); restore the file or make it anew.") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} holds a {type(value).__name__} instead of an object; make the file anew.")
    return value


def parse_lines(text: str, path: epath.Path) -> Rows:
    """The objects of JSON lines; a last line without its newline is left out.

    Raises:
      UserError: a line is none; names it.
    """
    lines = text.split("\n")
    # A run that was killed while it wrote leaves half a line at the end, without its newline.
    return [
        parse_object(line, f"{path}, line {number}") for number, line in enumerate(lines[:-1], start=1) if line.strip()
    ]


def by_step(rows: Rows, split: str) -> Rows:
    """The rows of one split by rising step; of a step that was run twice (resumed) the later line."""
    latest = {row["step"]: row for row in rows if row.get("split") == split}
    return [latest[step] for step in sorted(latest)]


def write_page(path: epath.Path, title: str, body: str) -> None:
    """Writes a whole page (`title` is plain text, `body` markup), so that it is complete or not there."""
    partial = path.with_name(path.name + ".partial")
    # A vocabulary learned from broken text can hold lone surrogates, which UTF-8 has no bytes for.
    partial.write_bytes(page_html(title, body).encode("utf-8", "xmlcharrefreplace"))
    partial.replace(path)


def figure_html(title: str, last: str, note: str, chart: str) -> str:
    """A chart (markup) under its title, its last value and a note (plain text)."""
    return (
        f'<figure class="card"><figcaption><h3>{escape(title)}</h3><span class="last">{escape(last)}</span>'
        f'</figcaption><p class="note">{escape(note)}</p>{chart}</figure>'
    )


def keys_html(keys: Sequence[tuple[str, str]]) -> str:
    """What the lines of the charts mean: pairs of a style of `plots.Series` and plain text."""
    items = "".join(
        f'<span><svg viewBox="0 0 30 10" aria-hidden="true"><path class="line {style}" d="M0,5L30,5"/></svg>'
        f"{escape(text)}</span>"
        for style, text in keys
    )
    return f'<p class="keys">{items}</p>'


def verdict_html(head: str, text: str, warnings: Sequence[str]) -> str:
    """The outcome in words (all plain text), green, or as a warning if there is one."""
    title = f"<b>{escape(head)}</b> {escape(text)}"
    if not warnings:
        return f'<div class="verdict">{title}</div>'
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<div class="verdict warn">{title}<ul>{items}</ul></div>'


def plain(value: Any) -> str:
    """A value of a record as a person reads it; "–" for what is not finite, "" for None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:#.4g}"


def making_html(record: Mapping[str, Any], config: str) -> str:
    """How a run was made: its record (any JSON, its `command` on top) and its config.gin ("" if there is none)."""
    facts = dict(record)
    command = facts.pop("command", "")
    text = command if isinstance(command, str) else " ".join(map(str, command))
    parts = [f"<details><summary>Command, machine, versions</summary>{_pre(text)}{_facts(facts)}</details>"]
    if config:
        parts.append(f"<details><summary>Configuration (config.gin)</summary>{_pre(config)}</details>")
    return "".join(parts)


def _pre(text: str) -> str:
    return f"<pre>{escape(text)}</pre>" if text else ""


def _facts(facts: Mapping[str, Any]) -> str:
    """A record of any shape as nested tables of two columns."""
    rows = "".join(f"<tr><th>{escape(str(name))}</th><td>{_fact(value)}</td></tr>" for name, value in facts.items())
    return f"<table><tbody>{rows}</tbody></table>"


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return _facts(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "<br>".join(_fact(item) for item in value)
    return f"<code>{escape(plain(value))}</code>"
