"""Recognise a file's content by its first bytes, whatever its suffix says."""

import csv
import json
import re
from collections.abc import Sequence

from electra_jax.errors import UserError

# The recognised formats, in words.
FORMATS = {
    "documents": "plain text, a blank line between documents",
    "lines": "plain text, a document a line",
    "jsonl": "JSON lines",
    "json": "a JSON array, or JSON objects of several lines",
    "csv": "a table of comma-separated values",
    "ssv": "a table of values separated by semicolons",
    "tsv": "a table of tab-separated values",
    "doc": "wikiextractor's <doc>",
    "wet": "a WET file",
    "parquet": "a Parquet file",
    "arrow": "an Arrow file",
    "arrow_stream": "an Arrow stream",
    "zip": "a zip archive",
    "tar": "a tar archive",
}
DELIMITERS = {"csv": ",", "ssv": ";", "tsv": "\t"}

_BINARY = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow_stream"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"WARC/1.", "wet"),
)
_TAR_MAGIC = slice(257, 262)

_CONVERT = "save its text as .txt, or as JSON lines"
# First bytes of formats that are recognised but not read, their names, and what to do instead.
_UNREADABLE_BYTES = (
    (rb"%PDF-", "a PDF file", "extract its text, for example with pdftotext"),
    (rb"SQLite format 3\0", "an SQLite database", _CONVERT),
    (rb"\x80[\x02-\x05][\x8a-\x95(}\]cX\x80]", "a pickle", _CONVERT),
    (rb"\x93NUMPY", "a NumPy array", _CONVERT),
    (rb"\x89HDF\r\n", "an HDF5 file", _CONVERT),
    (rb"\xd0\xcf\x11\xe0", "an old Office document (.doc, .xls, .ppt)", _CONVERT),
    (rb"\{\\rtf", "an RTF document", _CONVERT),
    (rb"7z\xbc\xaf|Rar!\x1a", "a 7z or RAR archive", "unpack it, or make it a .zip or .tar.gz"),
    (rb"\x04\x22\x4d\x18", "an LZ4 file", "decompress it with lz4"),
    (rb"Obj\x01", "an Avro file", "write it as Parquet or JSON lines"),
    (rb"ORC.{0,60}[\0-\x08\x0e-\x1f]", "an ORC file", "write it as Parquet or JSON lines"),
    (rb"FEA1", "a Feather file of version 1", "write it as Parquet"),
    (rb"RD[XA][0-9]\n", "an R data file", _CONVERT),
    (rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|II\*\0|MM\0\*", "an image", "read its text with a program for OCR"),
    (rb"\x7fELF|GGUF.{3}\0|.{8}\{\"__metadata__\"", "a program or a model's weights", "name text files"),
    (rb"\xff\xfe\0\0|\0\0\xfe\xff", "text in UTF-32", "convert it with iconv -f UTF-32 -t UTF-8"),
    (rb"\xff\xfe|\xfe\xff", "text in UTF-16", "convert it with iconv -f UTF-16 -t UTF-8"),
    (rb".{0,4000}?\x1b(\$[@B]|\(J)", "text in ISO-2022-JP", "convert it with iconv -f ISO-2022-JP -t UTF-8"),
    (rb".{0,4000}?\x1b\$\)C", "text in ISO-2022-KR", "convert it with iconv -f ISO-2022-KR -t UTF-8"),
)
_FASTA = r">\S.*\r?\n([A-Z*\-]{20,}|[ACGTUNacgtun]{20,})\r?\n"
# Four words, each with its tags, the last of which is an IOB tag.
_TAGGED = r"(-DOCSTART-.*\r?\n\s*)?(\S+[ \t](\S+[ \t])*([BIES]-\S+|O)\r?\n){4}"
# Eight words with a tag each, "The/DT dog/NN": the letters of a tag, or the sign that is a punctuation mark's tag.
_SLASHED = r"(\S*[^\s/]/([A-Za-z][A-Za-z$*+-]{0,9}|[^\w\s/]{1,3})\s+){8}|(\S+_([A-Z]{1,5}\$?|[^\w\s]{1,3})\s+){8}"
_VERTICAL = r"(<[^>\n]+>[ \t]*\r?\n)+([^\s<]+\t[^\n]+\n){2}"
# A tree of phrases, "(S (NP (DT The) (NN": labels in capitals or the numbers of a sentiment.
_TREE = r"\(\s*([A-Z0-9][^\s()]*)?\s*(\([A-Z0-9][^\s()]*\s+)+[^\s()]+\)\s*[()]"
_VECTORS = r"(\d+ \d+\r?\n)?\S+([ \t]-?\d+\.\d+(e-?\d+)?){10}"
_SQL = r"(?i:-- (mysql|mariadb|postgresql|phpmyadmin) (database )?(sql )?dump)|INSERT INTO \S+ VALUES"
_UNREADABLE_TEXT = (
    (r"(<\?xml[^>]*>\s*)?<mediawiki\b", "MediaWiki's XML", "extract its text with wikiextractor first"),
    (_FASTA, "a FASTA file", "write its sequences without their headers, with spaces between k-mers"),
    (r"(#.*\n)*1(-\d+)?\t([^\t\n]+\t){8}[^\t\n]+\n", "a CoNLL-U file", "write its sentences, the comments `# text =`"),
    (_TAGGED, "a CoNLL file of tagged words", "write its sentences, the words of its first column with spaces between"),
    (_VERTICAL, "a vertical file of words with tags", "write its sentences, the words of its first column alone"),
    (_SLASHED, "a text of words with their tags", "write its words alone"),
    (r"T\d+\t\S+ \d+ \d+(;\d+ \d+)*\t", "brat's annotations", "name the .txt files next to them"),
    (r"1\t[^\t\n]+\n2\t[^\t\n]+\n3\t[^\t\n]+\n", "a file of numbered lines", "remove the numbers with cut -f2"),
    (r"@(UTF8|Begin)[ \t]*\r?\n@", "a transcript in CHAT, as CHILDES has them", "extract its utterances"),
    (r"##fileformat=VCF", "a VCF file of genetic variants", "write the texts of one of its columns, if there are any"),
    (r"LOCUS {3,}\S", "a GenBank file", "write its sequences or its texts alone"),
    (r"<(TEI|teiCorpus)\b", "TEI's XML", "extract its text"),
    (r"@\S.*\n[ACGTNacgtn.]{10,}\n\+", "a FASTQ file", "write its sequences alone"),
    (r"(?i)<!doctype html|<html\b", "an HTML page", "extract its text, for example with trafilatura"),
    (r"<\?xml\b", "an XML file", "extract its text"),
    (_SQL, "an SQL dump", "extract its text"),
    (
        r"1\r?\n\d\d:\d\d:\d\d[,.]\d+ -->|WEBVTT\b|\[Script Info\]",
        "a file of subtitles",
        "remove its numbers and times",
    ),
    (_TREE, "a treebank", "write the words of its trees"),
    (_VECTORS, "a file of vectors", "name text files"),
    (r"\\data\\\r?\nngram ", "a model of n-grams", "name text files"),
    (r"((\d+[ \t]+){8,}\d+\s*\n){3}", "a file of numbers", "name the text if they are its token ids"),
    (r"(\S+ \d+\r?\n){8}", "a list of words with their counts", "name text files"),
    (r"#begin document\b", "a CoNLL file of tagged words", "write its sentences, the words with spaces between"),
    (r"(__label__\S+[ \t].*\n){2}", "a file of fastText with labels", "remove them with sed 's/__label__[^ ]* //g'"),
    (
        r"\{'\w+': |(\[('[^'\n]*', )+'[^'\n]*'\]\r?\n){2}",
        "a file of Python's values",
        "write them with json.dumps, one a line",
    ),
    (r'"\{\s*\\"\w+\\"\s*:', "JSON in strings of JSON", "write the objects themselves, one a line"),
    (r"window\.YTD\.", "a file of an archive of Twitter", "remove the text before its JSON, and name it .json"),
    (r"(#.*\n)*msgid \"", "a catalogue of gettext", "extract its texts"),
    (r"@\w+\{[^,\s{}]+,\s*\n", "a file of BibTeX", "name text files"),
    (r"From \S+ .*\d{4}\r?\n[A-Z][\w-]+: ", "a mailbox", "extract the texts of its messages"),
    (r"%!PS", "a PostScript file", "extract its text, for example with ps2ascii"),
    (r"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself with git lfs pull"),
)
# Content is not text if one of these patterns occurs often enough in its first characters.
_FREQUENT_IN = 2000
_FREQUENT = (
    (r"\w@@ |\S ##\w", 8, "text in subwords", "join them, or name the text that they were made from"),
    (r"(?:^|\s)\u2581\w", 8, "text in subwords", "join them, or name the text that they were made from"),
    (r"\\u[0-9a-fA-F]{4}|&#x?[0-9a-fA-F]{2,6};", 40, "text with escaped letters", "write the letters themselves"),
    (r"=[0-9A-F]{2}=[0-9A-F]{2}", 40, "text in quoted-printable", "decode it, for example with qprint -d"),
)
_FORCE = "or, if it is plain text all the same, set --gin.TEXT_FORMAT='\"documents\"'"

_JSON_OBJECT = re.compile(r'\{\s*("(?:[^"\\]|\\.)*"\s*:|\})')
_JSON_ARRAY = re.compile(r'\[\s*(\{\s*("|\})|"|\[)')
# Rows of a table that must have as many cells as its header, if the header does not name the text.
_FEWEST_ROWS = 3
# Lines of a table without a header, all of which have the same number of columns.
_FEWEST_LINES = 8
# Number of tags that make markup; prose may have one.
_FEWEST_TAGS = 3
# A share of NULs that no UTF-8 text has, but UTF-16 text without a byte-order mark does.
_MOST_NULS = 0.05


def recognise(head: bytes, *, suffix: str, text_field: str, place: str) -> str:
    """Return the format of a file's content, one of `FORMATS`.

    Args:
        head: the first bytes of the file, decompressed.
        suffix: its suffix, without that of a compression.
        text_field: the column of a table that holds the text.
        place: the file, for the error.

    Raises:
        UserError: if the file has a format that is recognised but cannot be read.
    """
    if container := container_of(head):
        return container
    if unreadable := unreadable_as(head):
        what, advice = unreadable
        raise UserError(f"{place} is {what}, which is not read: {advice}.")
    if has_zeros(head):
        raise UserError(f"{place} holds bytes of 0, which no text in UTF-8 has: convert it, or leave it out of CORPUS.")
    start = head.decode("utf-8", "replace").lstrip("\ufeff\x1e \t\r\n")
    for pattern, what, advice in _UNREADABLE_TEXT:
        if re.match(pattern, start):
            raise UserError(f"{place} is {what}, which is not read: {advice}, {_FORCE}.")
    for pattern, times, what, advice in _FREQUENT:
        if len(re.findall(pattern, start[:_FREQUENT_IN])) >= times and not start.startswith(("{", "[")):
            raise UserError(f"{place} is {what}, which is not read: {advice}, {_FORCE}.")
    if suffix == ".jsonl" and not start.startswith("["):
        return "jsonl"
    if _JSON_OBJECT.match(start) and (layout := _kind_of_json(start)):
        return layout
    if _is_json_array(start):
        return "json"
    if suffix == ".jsonl":
        return "jsonl"
    if suffix != ".md" and _is_markup(start):
        raise UserError(f"{place} is text between tags of SGML or XML, which is not read: extract its text, {_FORCE}.")
    if re.match(r"<doc\s[^>]*>", start):
        return "doc"
    if table := _kind_of_table(start, suffix, text_field):
        return table
    if suffix != ".md" and _has_columns(start):
        raise UserError(
            f"{place} is a table without a header, which is not read: write its texts alone, for example with cut, or "
            f"a first line of the names of its columns, {_FORCE}."
        )
    return "documents"


def container_of(head: bytes) -> str | None:
    """Return the format of a file that is never text, by its magic; None for others."""
    if head[_TAR_MAGIC] == b"ustar":
        return "tar"
    return next((kind for magic, kind in _BINARY if head.startswith(magic)), None)


def unreadable_as(head: bytes) -> tuple[str, str] | None:
    """Return the name of a format that is neither text nor holds texts, and what to do; None for others."""
    matching = (rest for pattern, *rest in _UNREADABLE_BYTES if re.match(pattern, head, re.DOTALL))
    return next(((what, advice) for what, advice in matching), None)


def has_zeros(head: bytes) -> bool:
    """Return whether a file has more zero bytes than UTF-8 text, as UTF-16 without a byte-order mark does."""
    return head.count(0) > _MOST_NULS * len(head)


def zip_application(names: Sequence[str]) -> tuple[str, str] | None:
    """Return which application's document a zip archive is, and what to do; None for other archives."""
    for pattern, what, advice in (
        (r"\[Content_Types\]\.xml", "a Word, Excel or PowerPoint document", _CONVERT),
        (r"META-INF/container\.xml", "an EPUB book", "extract its text, for example with pandoc"),
        (r"content\.xml", "an OpenDocument text or table", _CONVERT),
        (r"META-INF/MANIFEST\.MF", "a Java archive", "name text files"),
        (r"(.*/)?data\.pkl", "a file of PyTorch", _CONVERT),
        (r".*\.npy", "a NumPy archive", _CONVERT),
    ):
        if any(re.fullmatch(pattern, name) for name in names):
            return what, advice
    return None


def _is_markup(start: str) -> bool:
    """Return whether a text begins with a tag and has closed tags or tags at line starts, except wikiextractor's."""
    if re.match(r"<doc\s[^>]*\b(title|url)=", start):
        return False
    if re.match(r"<[A-Za-z][^<>]*>", start) and len(re.findall(r"</(?!doc>)[A-Za-z]", start)) >= _FEWEST_TAGS:
        return True
    first, *lines = start.split("\n")
    tags = [line for line in lines if re.match(r"\s*</?[A-Za-z][^<>]*>", line) and not re.match("</?doc[ >]", line)]
    return re.fullmatch(r"<[A-Za-z][^<>]*>\s*", first) is not None and len(tags) >= _FEWEST_TAGS


def _kind_of_json(start: str) -> str | None:
    """Return the layout of the JSON objects that begin here; None if it is prose that begins with one."""
    line, newline, _ = start.partition("\n")
    try:
        _, end = json.JSONDecoder().raw_decode(start)
    except json.JSONDecodeError as error:
        # A damaged line is reported when it is read.
        return "json" if newline and error.pos > len(line) else "jsonl"
    except (ValueError, RecursionError):
        return "jsonl"
    rest = start[end:].split("\n")[0].strip()
    if "\n" in start[:end] or rest.startswith("{"):
        return "json"
    # Objects with a comma after each are lines that have to be corrected.
    return None if rest not in ("", ",") else "jsonl"


def _is_json_array(start: str) -> bool:
    """Return whether an array of objects, strings or arrays begins here; prose may begin with `["Yes," he said]`."""
    found = _JSON_ARRAY.match(start)
    if found is None:
        return False
    if found[1].startswith("{"):
        return True
    try:
        _, end = json.JSONDecoder().raw_decode(start, found.start(1))
    except (ValueError, RecursionError):
        return False
    return start[end:].lstrip()[:1] in ("", ",", "]")


def _kind_of_table(start: str, suffix: str, text_field: str) -> str | None:
    """Return the kind of the table that begins here; None if it is not a table."""
    header = start.split("\n", maxsplit=1)[0].rstrip("\r")
    field = text_field.split(".")[0]
    cells = {kind: next(iter(_rows(header, delimiter)), []) for kind, delimiter in DELIMITERS.items()}
    for kind, columns in cells.items():
        if len(columns) > 1 and field in columns:
            return kind
    if suffix == ".csv":
        return max(("csv", "ssv"), key=lambda kind: len(cells[kind]))
    if suffix == ".tsv":
        return "tsv"
    for kind, columns in cells.items():
        if len(columns) > 1 and all(re.fullmatch(r"[^\W\d]\w*", name) for name in columns):
            # The last row may be incomplete.
            rows = _rows(start, DELIMITERS[kind])[1:-1]
            if len(rows) >= _FEWEST_ROWS and all(len(row) == len(columns) for row in rows):
                return kind
    return None


def _has_columns(start: str) -> bool:
    """Return whether all lines have the same number of tabs, or of vertical bars; the last may be incomplete."""
    lines = [line.rstrip("\r ") for line in start.split("\n")[:-1] if line.strip()]
    return any(
        len(lines) >= _FEWEST_LINES
        and lines[0].count(sign) > 0
        and all(line.count(sign) == lines[0].count(sign) and not line.startswith(sign) for line in lines)
        for sign in "\t|"
    )


def _rows(text: str, delimiter: str) -> list[list[str]]:
    """Return the rows of a table; none if it is not a table, such as a line with a carriage return inside."""
    try:
        return list(csv.reader((f"{line}\n" for line in text.split("\n")), delimiter=delimiter))
    except csv.Error:
        return []
