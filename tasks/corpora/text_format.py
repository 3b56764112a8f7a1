"""Recognise by its first lines how a file holds its text, whatever its suffix says."""

import csv
import json
import re

from electra_jax.errors import UserError

_JSON_OBJECT = re.compile(r'\{\s*"(?:[^"\\]|\\.)*"\s*:')
_FASTA = re.compile(r">\S.*\r?\n[A-Z*\-]{20,}\r?\n")
# What is recognised and not read, by its first characters, and what to do about it.
_UNREADABLE = (
    (re.compile(r"PAR1"), "a Parquet file", "convert it to JSON lines"),
    (re.compile(r"(<\?xml[^>]*>\s*)?<mediawiki\b"), "MediaWiki's XML", "extract its text with wikiextractor first"),
    (re.compile(r"\[\s*\{\s*\""), "a JSON array", "write one object a line, for example with jq -c '.[]'"),
    (_FASTA, "a FASTA file", "write its sequences without their headers, with spaces between k-mers"),
)


def recognise(head: str, *, suffix: str, text_field: str, path: str) -> str:
    """Return the text format of a file: "jsonl", "csv", "tsv", "doc" or "documents".

    Args:
        head: the first characters of the file.
        suffix: its suffix, without that of a compression.
        text_field: the column of a table that holds the text.
        path: the file, for the error.

    Raises:
        UserError: if the file is of a format that is recognised and cannot be read.
    """
    start = head.lstrip("\ufeff \t\r\n")
    if suffix == ".jsonl":
        return "jsonl"
    for pattern, what, advice in _UNREADABLE:
        if pattern.match(start):
            raise UserError(
                f"{path} is {what}, which is not read: {advice}, or, if it is plain text all the same, "
                "set --gin.TEXT_FORMAT='\"documents\"'."
            )
    if _JSON_OBJECT.match(start) and _is_json_line(start):
        return "jsonl"
    if re.match(r"<doc\s[^>]*>", start):
        return "doc"
    header = start.split("\n", maxsplit=1)[0].rstrip("\r")
    for kind, delimiter in (("csv", ","), ("tsv", "\t")):
        columns = _columns(header, delimiter)
        if suffix == f".{kind}" or (len(columns) > 1 and text_field.split(".")[0] in columns):
            return kind
    return "documents"


def _columns(header: str, delimiter: str) -> list[str]:
    """Return the cells of a line, or none if it is no line of a table, such as one with a carriage return inside."""
    try:
        return next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error:
        return []


def _is_json_line(start: str) -> bool:
    """Return whether the first line is a JSON object; one longer than the head counts as such."""
    line, end, _ = start.partition("\n")
    if not end:
        return True
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
