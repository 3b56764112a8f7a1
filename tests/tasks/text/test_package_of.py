"""`package_of`: no module in two splits, no package's name in a text, classes of one size."""

import collections
import pathlib

import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.corpora import embedded
from electra_jax.tasks.corpora.corpus import Document
from electra_jax.tasks.text import package_of
from electra_jax.tasks.text.package_of import (
    installed_examples,
    make_package_task,
    package_examples,
    split_of,
    without_names,
)
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary
from support.tiny_model import task_options

VOCABULARY = Vocabulary([*SPECIAL_TOKENS, "a"], lowercase=True, strip_accents=True)
MODULES = {"flax": 12, "jax": 20, "numpy": 30}
SPELLINGS = (
    "numpy",
    "NumPy",
    "NUMPY.linalg",
    "my_numpy_array",
    "np.sort",
    "(np)",
    "jnp",
    "JAX's",
    "Flax modules",
    "TF",
)


@pytest.fixture
def packages(tmp_path: pathlib.Path) -> dict[str, pathlib.Path]:
    """Folders of modules, each with two functions that name their package and their module."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    for package, number in MODULES.items():
        for module in range(number):
            file = tmp_path / package / "sub" / f"m{module}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            word = "".join(letters[int(digit)] for digit in str(module)) * 3
            spelling = SPELLINGS[module % len(SPELLINGS)]
            file.write_text(
                "\n".join(
                    f'def {name}():\n    """The {package.upper()} function of {spelling} that is {name} for the '
                    f'{word} of the {package}.sub in a {word}{name} of the module."""'
                    for name in ("first", "second")
                )
            )
    return {package: tmp_path / package for package in MODULES}


def module_of_text(text: str) -> str:
    return next(word for word in text.split() if len(word) % 3 == 0 and word[: len(word) // 3] * 3 == word)


def test_splits_of_a_tree_of_packages(packages: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    examples = installed_examples(packages, examples_per_class=16, keep_under=tmp_path / "kept")
    assert list(examples) == ["train", "dev", "test"]
    modules = {
        split: {(example.label, module_of_text(example.text_a)) for example in split_examples}
        for split, split_examples in examples.items()
    }
    assert all(modules.values())
    assert not modules["train"] & modules["dev"]
    assert not modules["train"] & modules["test"]
    assert not modules["dev"] & modules["test"]
    for split, most in (("train", 16), ("dev", 8), ("test", 8)):
        sizes = collections.Counter(example.label for example in examples[split])
        assert sizes.keys() == {0, 1, 2}
        assert len(set(sizes.values())) == 1
        assert 2 <= sizes[0] <= most
        assert [example.index for example in examples[split]] == list(range(len(examples[split])))
        for example in examples[split]:
            text = example.text_a.lower()
            assert not any(name in text for name in MODULES)
            assert not {"np", "jnp", "tf"} & set(text.replace("(", " ").replace(")", " ").replace(".", " ").split())
            assert "the function of" in text
    # Both functions of a module are on its side.
    seen = collections.Counter((e.label, module_of_text(e.text_a)) for split in examples.values() for e in split)
    assert max(seen.values()) == 2


def test_what_was_read_is_kept_for_the_same_packages_and_numbers(
    packages: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    first = installed_examples(packages, examples_per_class=16, keep_under=tmp_path / "kept")
    for file in tmp_path.glob("*/sub/*.py"):
        file.write_text("")
    assert installed_examples(packages, examples_per_class=16, keep_under=tmp_path / "kept") == first
    with pytest.raises(UserError, match="package_of: the package flax has no docstring for the train split"):
        installed_examples(packages, examples_per_class=15, keep_under=tmp_path / "kept")


def test_names_vanish_in_every_spelling() -> None:
    text = "NumPy's numpy.linalg.norm, my_NUMPY_array and (np.sort)\nof np, jax.numpy, Scikit-Learn and scikits.learn."
    assert without_names(text) == "'s linalg.norm, my__array and (sort) of , , and"
    assert (
        without_names("tensorflow_datasets, TensorFlow.js, tfds.load, tf_function, Python's")
        == ", js, load, _function, 's"
    )
    # Nicknames within words stay.
    assert (
        without_names("An input of the npy kind, shaped; a tfrecord") == "An input of the npy kind, shaped; a tfrecord"
    )


def test_the_share_of_modules_in_each_split() -> None:
    sizes = collections.Counter(split_of(f"numpy.module_{number}") for number in range(10_000))
    assert sizes["dev"] == pytest.approx(1500, abs=120)
    assert sizes["test"] == pytest.approx(1500, abs=120)


def test_classes_are_cut_to_the_smallest() -> None:
    def documents(package: str, number: int) -> list[Document]:
        return [Document(f"{package}/{package}.m{i}:f", f"text {i} of {package}") for i in range(number)]

    few, many = documents("jax", 40), documents("numpy", 400)
    examples = package_examples({"jax": few, "numpy": many}, examples_per_class=100)
    number = sum(split_of(embedded.module_of(document.key)) == "train" for document in few)
    assert collections.Counter(example.label for example in examples["train"]) == {0: number, 1: number}
    # One more document changes the choice by one at most: it is by hash, not by place.
    again = package_examples({"jax": few, "numpy": documents("numpy", 401)}, examples_per_class=100)
    texts = [{example.text_a for example in each["train"] if example.label == 1} for each in (examples, again)]
    assert len(texts[0] - texts[1]) <= 1


def test_the_task_of_this_environment() -> None:
    task = make_package_task(task_options("package_of"), VOCABULARY)
    assert len(task.labels) >= 8
    assert set(task.labels) <= embedded.installed_packages().keys()
    assert (task.kind, task.main_metric, task.splits) == ("classification", "accuracy", ("train", "dev", "test"))
    with pytest.raises(UserError, match=r"examples_per_class\)? is 0: it must be at least 1"):
        make_package_task(task_options("package_of", examples_per_class=0), VOCABULARY)
    with pytest.raises(UserError, match="package_of has no dev_matched split: it has train, dev and test"):
        task.examples("dev_matched")


def test_too_few_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    here = embedded.installed_packages()
    monkeypatch.setattr(embedded, "installed_packages", lambda: {"numpy": here["numpy"], "jax": here["jax"]})
    with pytest.raises(UserError, match=r"package_of needs 8 packages of 10, and flax, matplotlib.* are not installed"):
        make_package_task(task_options("package_of"), VOCABULARY)
    assert len(package_of.PACKAGES) == 10
