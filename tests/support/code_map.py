"""Write docs/code.md, a line for every file of the code: python -m tests.support.code_map"""

import ast
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "code.md"
HEAD = """# Every file of the code

What each file is for, as its first line says it: search this page. The order of the rooms, and who may import whom,
is in the [README](../README.md#the-code). `python -m tests.support.code_map` writes this page, and a test compares it
with the code.
"""


def purpose(path: Path) -> str:
    """Return the first paragraph of a module's docstring as one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(docstring.split("\n\n")[0].split())


def code_map() -> str:
    """Return the page: a section a folder, a line a file."""
    paths = [path for top in ("electra_jax", "tasks") for path in (ROOT / top).rglob("*.py")]
    sections = [HEAD]
    for folder, files in groupby(sorted(paths, key=lambda path: (path.parent, path)), key=lambda path: path.parent):
        lines = [f"## {folder.relative_to(ROOT)}/", ""]
        for path in files:
            said = purpose(path)
            lines += [said, ""] if path.name == "__init__.py" else [f"* `{path.name}`: {said}"]
        sections.append("\n".join(lines) + "\n")
    return "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(code_map())
