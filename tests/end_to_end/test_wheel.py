"""A wheel holds everything, claims one top-level name, and runs away from the checkout, with and without TensorFlow."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from support.command_line import SMALL, STEPS, arrays, assert_same_arrays, electra, environment


@pytest.fixture(scope="module")
def tracked(repository: Path) -> list[str]:
    """Files that git knows, or would if they were added."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    return [name for name in listed.stdout.splitlines() if (repository / name).is_file()]


@pytest.fixture(scope="module")
def wheel(repository: Path, tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing left over from an earlier build is in it."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / name, folder / "source" / name)
    # Without the index where what builds it is installed.
    offline = ["--no-index", "--no-build-isolation"] if _setuptools() >= 77 else []
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *offline, "--wheel-dir", str(folder)]
    built = subprocess.run([*command, str(folder / "source")], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built
    (found,) = folder.glob("*.whl")
    return found


def _setuptools() -> int:
    try:
        return int(importlib.metadata.version("setuptools").partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 0


def test_every_folder_is_declared_as_a_package(repository: Path, tracked: list[str]) -> None:
    """One that holds data alone too: setuptools warns of it, and will leave its files out."""
    declared = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {str(folder): name for name, folder in declared["package-dir"].items()}
    packages = set()
    for name in tracked:
        top, *below = Path(name).parent.parts or ("",)
        if top in folders:
            packages.add(".".join([folders[top], *below]))
    assert sorted(declared["packages"]) == sorted(packages)


def test_it_holds_everything_and_nothing_else(wheel: Path, tracked: list[str]) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name for name in names if ".dist-info/" not in name}
    folders = {"electra_jax": "electra_jax", "tasks": "electra_jax/tasks", "gin": "electra_jax/gin"}
    wanted = set()
    for name in tracked:
        top, _, rest = name.partition("/")
        if top in folders and rest:
            wanted.add(f"{folders[top]}/{rest}")
    assert inside == wanted
    assert sum(name.endswith(".gin") for name in inside) >= 17
    assert {name.partition("/")[0] for name in inside} == {"electra_jax"}


def test_it_runs_in_another_environment(wheel: Path, place: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True)
    # What it depends on comes from here; a .pth file there would be read only from a site folder, so that the
    # editable install of this environment stays out.
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    electra = str(tmp_path / "venv" / "bin" / "electra")
    env = {name: value for name, value in environment(place / "cache").items() if name != "PYTHONPATH"}

    def run(*arguments: str) -> str:
        done = subprocess.run(arguments, cwd=elsewhere, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
        return done.stdout

    where = run(str(python), "-c", "import electra_jax, electra_jax.tasks as tasks; print(tasks.__file__)")
    assert Path(where.strip()).is_relative_to(site)
    inspected = run(electra, "inspect", "--gin_file=gin/runs/small.gin")
    assert "parameters: 14,196,219" in inspected
    settings = SMALL | {
        "CORPUS": str(place / "text.txt"),
        "VOCAB_FILE": str(place / "vocab.txt"),
        "MODEL_DIR": "mine",
        "CACHE_DIR": "caches",
        "TRAIN_STEPS": 2,
        "WARMUP_STEPS": 0,
    }
    bindings = [f"--gin.{name}={value!r}" for name, value in settings.items()]
    trained = run(electra, "pretrain", "--gin_file=gin/runs/demo.gin", *bindings)
    assert "done: 2 steps in mine" in trained
    assert sorted(os.listdir(elsewhere)) == ["caches", "mine"]


def test_it_trains_from_a_cache_where_text_cannot_be_read(
    wheel: Path, place: Path, whole: Path, tmp_path: Path
) -> None:
    """The machine of docs/one_gpu.md: no package that reads text is there, and the state is the same to the bit."""
    absent = ("tensorflow", "seqio", "clu", "tfds", "zstandard", "importlib_resources", "electra_jax", "__editable__")
    site = tmp_path / "site"
    site.mkdir()
    for folder in (path for path in map(Path, sys.path) if path.name == "site-packages"):
        for path in folder.iterdir():
            if not path.name.startswith(absent) and not (site / path.name).exists():
                (site / path.name).symlink_to(path)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    made = {name: SMALL[name] for name in ("SEQUENCE_LENGTH", "HELD_OUT_FRACTION", "NUM_PROCESSES")}
    made |= {"CORPUS": str(place / "text.txt"), "VOCAB_FILE": str(place / "vocab.txt"), "CACHE_DIR": str(tmp_path)}
    built = electra(["cache", *(f"--gin.{name}={value!r}" for name, value in made.items())], place / "cache")
    assert built.returncode == 0, built
    Path(built.stdout.splitlines()[-1]).rename(tmp_path / "cache")
    env = environment(place / "cache") | {"PYTHONPATH": str(site)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        # -S: nothing but this folder and the standard library.
        command = [sys.executable, "-S", "-m", "electra_jax", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
        return done

    settings = {"CORPUS": "cache", "VOCAB_FILE": str(place / "vocab.txt"), "MODEL_DIR": "mine"}
    bindings = [f"--gin.{name}={value!r}" for name, value in (SMALL | STEPS | settings).items()]
    trained = run("pretrain", "--gin_file=gin/models/tiny.gin", "--gin_file=gin/runs/pretrain.gin", *bindings)
    assert f"done: {STEPS['TRAIN_STEPS']} steps in mine" in trained.stdout
    assert trained.stderr == ""
    steps = STEPS["TRAIN_STEPS"]
    assert_same_arrays(arrays(tmp_path / "mine", steps), arrays(whole, steps))
    run("export", "mine", "weights", "--format", "transformers")
    assert (tmp_path / "weights" / "discriminator" / "model.safetensors").exists()
