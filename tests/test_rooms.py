"""Who may import whom: a room imports what stands on a lower line of the table, a library only where it is at home."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Read downward: a room imports what stands on a line below it, nothing on its own line and nothing above.
TABLE = (
    ("__main__",),
    ("cli",),
    ("commands",),
    ("interchange", "t5x", "compare", "serving", "__init__"),
    ("inference", "finetuning", "reports"),
    ("checkpoints", "monitoring", "seqio_tasks"),
    ("config",),
    ("tasks",),
    ("data",),
    ("pretraining", "distributed"),
    ("training",),
    ("json_files",),
    ("model", "files"),
    ("ranges",),
    ("errors", "runtime", "run_directory", "locks"),
)
PURE = ("model", "training", "pretraining", "data")
PURE_LIBRARIES = {"jax", "flax", "optax", "numpy"}
# The only places, room or module, that import a library.
HOMES = {
    "orbax": ("checkpoints",),
    "gin": ("config",),
    "tensorflow": ("tasks", "interchange.tf1", "t5x"),
    "seqio": ("tasks", "seqio_tasks", "t5x"),
    "tensorflow_datasets": ("tasks",),
    "t5x": ("t5x",),
    "onnx": ("interchange.onnx_export", "interchange.onnx_graph", "interchange.onnx_heads"),
    "starlette": ("serving",),
    "uvicorn": ("serving",),
}
LINE = {room: number for number, rooms in enumerate(TABLE) for room in rooms}
HEAVY = {"tensorflow", "seqio", "gin", "t5x", "orbax", "clu", "tensorflow_datasets"}


def modules() -> dict[str, Path]:
    """Return the files of the package by their names below it: `tasks.qa.task` for tasks/qa/task.py."""
    inside = {path.relative_to(ROOT / "electra_jax"): path for path in (ROOT / "electra_jax").rglob("*.py")}
    inside |= {path.relative_to(ROOT): path for path in (ROOT / "tasks").rglob("*.py")}
    names = {".".join(place.with_suffix("").parts): path for place, path in inside.items()}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """Yield what a module imports, wherever in the file: our modules by their names below the package."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            if target.partition(".")[0] != "electra_jax":
                yield target
                continue
            below = target.partition(".")[2]
            while below and below not in MODULES:
                below = below.rpartition(".")[0]
            yield f"electra_jax.{below or '__init__'}"


def test_every_room_stands_in_the_table() -> None:
    assert {name.partition(".")[0] for name in MODULES} == set(LINE)


def test_the_readme_draws_the_table() -> None:
    """Its entries go down line by line; what is "(beside X)" stands on the line of X."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = page[page.index("\nelectra_jax/\n") : page.index("\ntasks/  ")]
    lines: list[set[str]] = []
    for name, words in re.findall(r"^  (\w+)(?:/|\.py) +(.+)$", tree, re.MULTILINE):
        beside = re.search(r"\(beside (\w+)(?:/|\.py)\)", words)
        if beside is None:
            lines.append(set())
        else:
            assert beside[1] in lines[-1], name
        lines[-1].add(name)
    assert lines == [set(rooms) - {"__init__"} for rooms in TABLE[1:]]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_run_downward(name: str) -> None:
    room = name.partition(".")[0]
    ours = {target.split(".")[1] for target in imports(name) if target.startswith("electra_jax.")} - {room}
    assert sorted(other for other in ours if LINE[other] <= LINE[room]) == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_libraries_are_imported_where_they_are_at_home(name: str) -> None:
    libraries = {target.partition(".")[0] for target in imports(name)} - {"electra_jax"} - sys.stdlib_module_names
    for library, homes in HOMES.items():
        at_home = any(name == home or name.startswith(f"{home}.") for home in homes)
        assert library not in libraries or at_home, library
    if name.partition(".")[0] in PURE:
        assert libraries <= PURE_LIBRARIES


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {name: {target.removeprefix("electra_jax.") for target in imports(name)} & set(MODULES) for name in MODULES}
    reached = {name: set(targets) for name, targets in graph.items()}
    for middle in graph:
        for targets in reached.values():
            if middle in targets:
                targets |= reached[middle]
    assert sorted(name for name, targets in reached.items() if name in targets) == []


def test_pure_rooms_load_nothing_heavy() -> None:
    names = [f"electra_jax.{name}" for name in MODULES if name.partition(".")[0] in PURE]
    program = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
print(sorted({HEAVY!r} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["electra_jax.cli", "electra_jax"])
def test_the_command_line_answers_before_anything_heavy_is_loaded(module: str) -> None:
    program = f"import sys, {module}; print(sorted({{'jax', 'numpy', 'tensorflow', 'gin', 'rich'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
