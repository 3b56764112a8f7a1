"""Extract the prose of a docstring: code, signatures, tables and markup removed, one sentence a string."""

import inspect
import re
from collections.abc import Iterator

_ADMONITION = re.compile(r"\.\. (note|warning|important|tip|hint|caution|attention|deprecated|admonition)::")
_UNDERLINE = re.compile(r"([=\-~^`'\"#*+.])\1{2,}\s*$")
_FIELD = re.compile(r"(:\w[^:`]*:|@\w+)(\s|$)")  # ":param x: ...", "@param x ..."
_BULLET = re.compile(r"([*\-+•]|\(?\d{1,2}[.)]|#\.)\s+")
_GOOGLE_ITEM = re.compile(r"\*{0,2}`{0,2}[\w.\[\]*]+`{0,2}(,\s*`{0,2}\w+`{0,2})*\s*(\([^)]*\))?\s*:\s+(?=\S)")
_NUMPY_ITEM = re.compile(r"[\w.*\\`'\"\[\]{}, ]+ : \S.*|[\w.*\\`]+(, [\w.*\\`]+)*")
_TABLE_ROW = re.compile(r"^\s*([|+]|[=\-]{2,}\s+[=\-]{2,})")
_HEADING = re.compile(r"[A-Z][A-Za-z ]{2,20}:")
# Sections without prose: names, links, signatures.
_LISTS = {"see also", "references", "methods", "index", "authors", "author"}

_INLINE = (
    (re.compile(r":[\w:+-]+:`~?\.?([^`<]*?)\s*(<[^`>]*>)?`"), r"\1"),  # :class:`~a.b`, :ref:`text <target>`
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{0,2}"), r"\1"),
    (re.compile(r"\[([^\]\[]+)\]\([^)\s]*\)"), r"\1"),  # [text](address)
    (re.compile(r"\s*\[[\w#*-]+\]_"), ""),  # a footnote's or citation's mark
    (re.compile(r"<?(https?|ftp)://[^\s>]+>?"), ""),
    (re.compile(r"`{1,3}([^`]*)`{1,3}_{0,2}"), r"\1"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"\1"),
    (re.compile(r"(?<![\w*])\*([^\s*][^*]*)\*(?![\w*])"), r"\1"),
    (re.compile(r"\\([*_`|\\])"), r"\1"),
    (re.compile(r"\\ "), ""),  # RST's invisible space
    (re.compile(r"\s*\(\s*\)"), ""),
    (re.compile(r"\s+([.,;:])(?=\s|$)"), r"\1"),
    (re.compile(r"\s+"), " "),
)

# A sentence ends at . ! or ? before a space and a capital, unless the word is a known abbreviation.
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]?\s+(?=[\"'(\[]?[A-Z])")
_ABBREVIATION = re.compile(r"(\b(e\.g|i\.e|etc|cf|vs|al|Fig|Eq|Sec|Dr|Mr|Mrs|St|No|Vol|pp|resp|approx)|\b[A-Z])\.$")

_WORD = re.compile(r"[A-Za-z][a-z]*(?:['’-][A-Za-z]+)*[,;:.!?)\"']*$")
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "the a an of to in is are be and or for with that this by on as it if not "
        "from at can will when which was has have may should must you we its their than then each into only all any",
    )
)
# Code in a paragraph of its own, neither marked up nor after a prompt.
_STATEMENT = re.compile(r"import \w|from [\w.]+ import|(class|def) \w+\(|@?[\w.]+(\(| = )")
_FEWEST_WORDS = 4
_LEAST_WORD_SHARE = 0.7
_LEAST_COMMON_SHARE = 0.1


def prose_paragraphs(docstring: str) -> list[list[str]]:
    """Return the paragraphs of prose in a docstring, each a list of its sentences, in order.

    The result leaves out doctests, literal, fenced and directive blocks, headings, tables, references, lists of names,
    names and types of parameters (their descriptions stay), and paragraphs that do not read as English.
    """
    lines = inspect.cleandoc(docstring).expandtabs().split("\n")
    paragraphs = (_sentences(_plain(text)) for text in _blocks(_without_code(lines)))
    return [sentences for sentences in paragraphs if sentences]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _without_code(lines: list[str]) -> Iterator[str]:
    """Yield the lines that are not code; a blank line replaces every removed block."""
    fenced = doctest = False
    block_indent: int | None = None  # of the line that introduced a literal block or a directive
    for line in lines:
        text = line.strip()
        if text.startswith(("```", "~~~")):
            fenced = not fenced
            yield ""
            continue
        if not text:
            doctest = False
        elif text.startswith((">>>", "In [")):
            doctest = True
        if block_indent is not None and text and _indent(line) <= block_indent:
            block_indent = None
        if fenced or doctest or block_indent is not None or not text:
            yield ""
            continue
        if text.startswith(".. "):
            if not _ADMONITION.match(text):
                block_indent = _indent(line)
            yield ""
        elif text.endswith("::"):
            block_indent = _indent(line)
            yield line.rstrip()[:-1] if len(text) > 2 else ""
        else:
            yield line


def _blocks(lines: Iterator[str]) -> Iterator[str]:
    """Join wrapped lines into paragraphs, and leave out headings, tables and the sections without prose."""
    block: list[str] = []
    in_list = False
    list_indent = -1
    kept = [*lines, ""]
    for line, following in zip(kept, [*kept[1:], ""], strict=True):
        text = line.strip()
        underlined = bool(text) and bool(_UNDERLINE.match(following.strip()))
        if _UNDERLINE.match(text):
            block = []  # the text above the line is a heading
        elif underlined or _HEADING.fullmatch(text):
            yield from _finished(block)
            block = []
            in_list = text.rstrip(":").lower() in _LISTS
            # A section under an underlined heading ends at the next one; under "Heading:", at the dedent.
            list_indent = -1 if underlined else _indent(line)
        else:
            in_list = in_list and (not text or _indent(line) > list_indent)
            if not text or _starts_block(line, block):
                yield from _finished(block)
                block = []
            if text and not in_list:
                block.append(line)


def _starts_block(line: str, block: list[str]) -> bool:
    """Return whether the line does not continue the paragraph in `block`."""
    if not block:
        return False
    text = line.strip()
    step = _indent(line) - _indent(block[0])
    if step < 0 or _BULLET.match(text) or _FIELD.match(text):
        return True
    if step == 0:
        after_hanging_lines = _indent(block[-1]) > _indent(block[0])
        return after_hanging_lines or bool(_GOOGLE_ITEM.match(text) and _GOOGLE_ITEM.match(block[0].strip()))
    if len(block) == 1:
        return bool(_NUMPY_ITEM.fullmatch(block[0].strip()))
    return _indent(line) > _indent(block[-1])


def _finished(block: list[str]) -> Iterator[str]:
    if not block or sum(bool(_TABLE_ROW.match(line)) or "   " in line.strip() for line in block) * 2 > len(block):
        return
    text = " ".join(line.strip() for line in block)
    if len(block) == 1 and _NUMPY_ITEM.fullmatch(text) and not text.endswith("."):
        return
    text = _BULLET.sub("", text, count=1) if _BULLET.match(text) else text
    if _FIELD.match(text):
        text = re.sub(r"^(:\w[^:`]*:|@\w+(\s+\w+:?)?)\s*", "", text)
    else:
        text = _GOOGLE_ITEM.sub("", text, count=1) if _GOOGLE_ITEM.match(text) else text
    yield text


def _plain(text: str) -> str:
    for pattern, replacement in _INLINE:
        text = pattern.sub(replacement, text)
    return text.lstrip(" -:*").rstrip(" -*")


def _sentences(text: str) -> list[str]:
    """Return the sentences of a paragraph that read as English; none if they have too few words together."""
    sentences: list[str] = []
    for piece in _SENTENCE_END.split(text):
        if sentences and _ABBREVIATION.search(sentences[-1]):
            sentences[-1] += f" {piece}"
        else:
            sentences.append(piece)
    english = [sentence for sentence in sentences if _reads_as_english(sentence)]
    return english if sum(len(sentence.split()) for sentence in english) >= _FEWEST_WORDS else []


def _reads_as_english(sentence: str) -> bool:
    words = sentence.split()
    if not sentence.isprintable() or _STATEMENT.match(sentence):
        return False
    plain = sum(1 for word in words if _WORD.match(word.lstrip("(\"'[")))
    common = sum(1 for word in words if word.lower() in _COMMON)
    return plain >= _LEAST_WORD_SHARE * len(words) and common >= _LEAST_COMMON_SHARE * len(words)
