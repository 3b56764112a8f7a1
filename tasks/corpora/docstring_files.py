"""Read the docstrings of source files in a process of its own: `python -m electra_jax.tasks.corpora.docstring_files`.

`embedded` starts the process. It reads [[file, module], ...] as JSON from its standard input and answers with the list
of [module, qualname, paragraphs]. Files are parsed, never imported.
"""

import ast
import json
import sys
import warnings
from collections.abc import Iterator

from electra_jax.tasks.corpora.docstrings import prose_paragraphs

Prose = tuple[str, list[list[str]]]


def prose_of_file(file: str) -> Iterator[Prose]:
    """Yield the qualified name and the prose of each docstring of a source file, in order."""
    with open(file, "rb") as stream:
        source = stream.read()
    try:
        with warnings.catch_warnings():
            # Warnings about invalid escapes and the like concern only the authors of those sources.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return  # a template, or a file for another Python
    for qualname, docstring in _docstrings(tree, ""):
        paragraphs = prose_paragraphs(docstring)
        if paragraphs:
            yield qualname, paragraphs


def _docstrings(node: ast.AST, qualname: str) -> Iterator[tuple[str, str]]:
    """Yield every string that is a statement (an attribute's docstring too) or an argument of `add_newdoc`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child, f"{qualname}.{child.name}".lstrip("."))
        elif isinstance(child, ast.Expr):
            if isinstance(child.value, ast.Constant) and isinstance(child.value.value, str):
                yield qualname, child.value.value
            elif isinstance(child.value, ast.Call):
                yield from _new_docstrings(child.value)
        elif isinstance(child, ast.stmt | ast.ExceptHandler):
            yield from _docstrings(child, qualname)


def _new_docstrings(call: ast.Call) -> Iterator[tuple[str, str]]:
    """Yield the docstrings that NumPy and SciPy give to code written in C: add_newdoc(place, name, text)."""
    if not ast.unparse(call.func).endswith("add_newdoc"):
        return
    strings = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant)]
    names = [text for text in strings if isinstance(text, str) and "\n" not in text]
    for text in strings:
        if isinstance(text, str) and "\n" in text:
            yield ".".join(names[-2:]), text


def main() -> None:
    """Answer one request."""
    files = json.load(sys.stdin)
    json.dump([(module, *prose) for file, module in files for prose in prose_of_file(file)], sys.stdout)


if __name__ == "__main__":
    main()
