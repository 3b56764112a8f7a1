"""Define `package_of`: given a docstring of the embedded corpus, which package is it from?

The classes are ten packages that are installed with this project, two of them with its extra `demo`. Modules, not
docstrings, are divided among the splits; the packages' names are removed from the texts; and each class has as many
examples as the others. Scores differ a little between environments with other versions of the packages.
"""

import collections
import functools
import json
import pathlib
import re
from collections.abc import Iterable, Mapping

from electra_jax.errors import UserError
from electra_jax.files import replace_file
from electra_jax.tasks.corpora import embedded
from electra_jax.tasks.corpora.corpus import Document, fingerprint_of, text_hash
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.protocol import Examples
from electra_jax.tasks.split_files import Sources
from electra_jax.tasks.text.tables import Classes, TextExample
from electra_jax.tasks.text.task import STANDARD_RULES, TextTask
from electra_jax.tasks.vocabulary import Vocabulary

NAME = "package_of"

# Raise it when the same sources would yield other examples: kept ones are then not used.
_VERSION = 1

# Each package with its other spellings. Names are removed wherever they occur, nicknames only as whole words.
_NICKNAMES = {
    "flax": (),
    "jax": ("jnp",),
    "matplotlib": ("mpl", "plt", "pyplot", "pylab"),
    "numpy": ("np",),
    "orbax": ("ocp",),
    "scipy": (),
    "sklearn": ("scikit-learn", "scikit learn", "scikits.learn"),
    "stdlib": ("python", "cpython"),
    "tensorflow": ("tf",),
    "tensorflow_datasets": ("tfds",),
}
PACKAGES = tuple(_NICKNAMES)

_FEWEST_CLASSES = 8

# Percentages of the modules; the rest is for training.
_PERCENT = {"dev": 15, "test": 15}

# The most examples of each other split for each training example of a class.
_EVALUATION_SHARE = 0.5

_NAMES = re.compile(
    "|".join(
        [
            *(re.escape(name) for name in sorted(PACKAGES, key=len, reverse=True)),
            *(
                rf"(?<![^\W_]){re.escape(nickname)}(?![^\W_])"
                for nicknames in _NICKNAMES.values()
                for nickname in nicknames
            ),
        ]
    ).join(("(", r")\.?")),
    flags=re.IGNORECASE,
)


def without_names(text: str) -> str:
    """Remove the names of all classes, in any case, also as part of a dotted or longer name; join the lines."""
    return " ".join(_NAMES.sub("", text).split())


def split_of(module: str) -> str:
    """Return the split of a module's docstrings: "train", "dev" or "test"."""
    share = text_hash(module) % 100
    return "dev" if share < _PERCENT["dev"] else "test" if share < sum(_PERCENT.values()) else "train"


def package_examples(
    documents: Mapping[str, Iterable[Document]], *, examples_per_class: int
) -> dict[str, list[TextExample]]:
    """Divide the documents of each package into splits and cut them to one size.

    Args:
        documents: the docstrings of each class; classes are numbered in this order.
        examples_per_class: the most examples of a class in the training split; other splits have at most half as many.

    Returns:
        The examples of "train", "dev" and "test". Every class has the same number: those of its documents whose keys
        have the smallest hashes.

    Raises:
        UserError: if a class has no document in one of the splits.
    """
    found: dict[str, dict[str, list[tuple[int, str]]]] = {
        split: {package: [] for package in documents} for split in ("train", *_PERCENT)
    }
    for package, package_documents in documents.items():
        for document in package_documents:
            text = without_names(document.text)
            if text:
                split = split_of(embedded.module_of(document.key))
                found[split][package].append((text_hash(document.key), text))
    examples = {}
    for split, by_package in found.items():
        most = examples_per_class if split == "train" else max(1, int(examples_per_class * _EVALUATION_SHARE))
        fewest, package = min((len(texts), package) for package, texts in by_package.items())
        if not fewest:
            raise UserError(f"{NAME}: the package {package} has no docstring for the {split} split")
        chosen = [
            (hashed, text, label)
            for label, texts in enumerate(by_package.values())
            for hashed, text in sorted(texts)[: min(most, fewest)]
        ]
        examples[split] = [TextExample(i, text, None, label) for i, (_, text, label) in enumerate(sorted(chosen))]
    return examples


def installed_examples(
    packages: Mapping[str, pathlib.Path], *, examples_per_class: int, keep_under: pathlib.Path
) -> dict[str, list[TextExample]]:
    """Return `package_examples` of installed packages; read again only if one of them, or their number, has changed.

    Args:
        packages: each package with its folder, from `embedded.installed_packages`.
        examples_per_class: the most examples of a class in the training split.
        keep_under: the folder in which the examples are kept.
    """
    versions = embedded.package_versions(list(packages))
    fingerprint = fingerprint_of(NAME, _VERSION, embedded.EXTRACTOR_VERSION, versions, examples_per_class)
    path = keep_under / f"{NAME}-{fingerprint}.json"
    if not path.exists():
        documents = dict(embedded.extract(dict(packages)))
        examples = package_examples(documents, examples_per_class=examples_per_class)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(examples))
    kept = json.loads(path.read_text(encoding="utf-8"))
    return {split: [TextExample(*example) for example in examples] for split, examples in kept.items()}


def make_package_task(options: TaskOptions, vocabulary: Vocabulary) -> TextTask:
    """Make the task; its docstrings are read when the first split is.

    Raises:
        UserError: if fewer than eight of the packages are installed.
    """
    installed = embedded.installed_packages()
    packages = {name: installed[name] for name in PACKAGES if name in installed}
    if len(packages) < _FEWEST_CLASSES:
        missing = ", ".join(name for name in PACKAGES if name not in installed)
        raise UserError(f"{NAME} needs {_FEWEST_CLASSES} packages of {len(PACKAGES)}, and {missing} are not installed")
    from electra_jax.runtime import user_cache  # imports JAX

    @functools.cache
    def examples() -> dict[str, list[TextExample]]:
        return installed_examples(
            packages, examples_per_class=options.examples_per_class, keep_under=user_cache() / NAME
        )

    def read(split: str) -> Examples:
        return Examples(examples()[split], collections.Counter())

    return TextTask(
        name=NAME,
        target=Classes(tuple(packages)),
        thresholds=None,
        pair=False,
        clips=False,
        metrics=("accuracy",),
        rules=STANDARD_RULES,
        vocabulary=vocabulary,
        length=options.row_length,
        long_texts=options.long_texts,
        sources=Sources(
            {split: functools.partial(read, split) for split in ("train", *_PERCENT)},
            "it has train, dev and test",
        ),
    )
