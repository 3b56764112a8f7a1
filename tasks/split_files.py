"""Find the sources of a task's splits: files in the public layout or named, or a prepared TFDS dataset."""

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.corpus import text_hash
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.protocol import Examples

SPLITS = ("train", "dev", "test")

# Names of our splits in TFDS, in search order.
_TFDS_SPLITS = {"train": ("train",), "dev": ("dev", "validation"), "test": ("test",)}


@dataclasses.dataclass(frozen=True)
class Sources:
    """Say which splits a task has, and how each is read.

    Attributes:
        readers: a function for each existing split, in the order of `SPLITS`.
        missing: the end of the error about any other split: where it was looked for, and what to do.
    """

    readers: Mapping[str, Callable[[], Examples]]
    missing: str

    def read(self, task: str, split: str) -> Examples:
        """Read a split of `task`; "dev" means the first of MNLI's "dev_matched" and "dev_mismatched", "test" likewise.

        Raises:
            UserError: if there is no such split, or for any reason that the reader has.
        """
        for name, reader in self.readers.items():
            if name == split or name.startswith(f"{split}_"):
                return reader()
        raise UserError(f"{task} has no {split} split: {self.missing}.")


class FromSources:
    """Read the splits of a task that has `name` and `sources`."""

    name: str
    sources: Sources

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits that can be read."""
        return tuple(self.sources.readers)

    def examples(self, split: str) -> Examples:
        """Read the examples of a split.

        Raises:
            UserError: if there is no such split or file, or nothing in it can be used.
        """
        return self.sources.read(self.name, split)


_NAME_THE_FILE = "name the file itself by TRAIN_FILE, DEV_FILE or TEST_FILE"
# The sources of a task that was rebuilt from its record, which reads only raw input.
NO_SOURCES = Sources({}, f"it was made without data files; set DATA_DIR, or {_NAME_THE_FILE}")


def reads_tfds(options: TaskOptions) -> bool:
    """Return whether the data is a TFDS dataset and not files.

    Raises:
        UserError: if `options.source` is neither "files" nor "tfds".
    """
    if options.source not in ("files", "tfds"):
        raise UserError(f"SOURCE is {options.source!r}: it must be 'files' or 'tfds'.")
    return options.source == "tfds"


def split_paths(
    options: TaskOptions, *, folders: Sequence[str], suffixes: Sequence[str], splits: Sequence[str] = SPLITS
) -> dict[str, pathlib.Path]:
    """Return the files of the splits that have one, by path or under `data_dir`; see `file_sources`."""
    named = {"train": options.train_file, "dev": options.dev_file, "test": options.test_file}
    paths: dict[str, pathlib.Path] = {}
    for split in splits:
        # The path for "dev" is that of the first dev split.
        named_path = named.pop(split.split("_")[0], None)
        looked = [] if named_path is None else [pathlib.Path(named_path)]
        if options.data_dir is not None:
            root = pathlib.Path(options.data_dir)
            looked += [root / folder / f"{split}{suffix}" for folder in (*folders, "") for suffix in suffixes]
        # A file that was named, or is a broken link, is opened even though it does not exist: the error names it.
        there = (path for path in looked if named_path is not None or os.path.lexists(path))
        found = next(there, None)
        if found is not None:
            paths[split] = found
    return paths


def what_is_missing(
    options: TaskOptions, *, folders: Sequence[str], suffixes: Sequence[str], splits: Sequence[str] = SPLITS
) -> str:
    """Return `Sources.missing` for files: where they were looked for."""
    names = splits[0] if len(splits) == 1 else f"{{{','.join(splits)}}}"
    files = " or ".join(f"{folder}/{names}{suffix}" for folder in folders for suffix in suffixes)
    if options.data_dir is None:
        where = f"DATA_DIR is not set; set it to the folder that holds {files}"
    else:
        where = f"it is not in {options.data_dir} as {files}; set DATA_DIR to the folder that holds it"
    return f"{where}, or {_NAME_THE_FILE}"


def file_sources(
    options: TaskOptions,
    *,
    folders: Sequence[str],
    suffixes: Sequence[str],
    read: Callable[[pathlib.Path, str], Examples],
    text_of: Callable[[Any], str] | None,
) -> Sources:
    """Return the splits whose files exist: those named by path, and `{folder}/{split}{suffix}` under `data_dir`.

    Args:
        options: `data_dir`, the explicit paths, and `dev_fraction`: without a dev file and `folds`, that share of the
            training examples becomes the dev split.
        folders: names of the task's folder, in search order; `data_dir` itself comes last.
        suffixes: suffixes of the files, in order.
        read: returns the examples of a file, given its split.
        text_of: returns the text of an example, which decides whether it is held out: examples with the same text stay
            together. None for a benchmark that has a dev file, whose absence is then a mistake.
    """
    paths = split_paths(options, folders=folders, suffixes=suffixes)
    readers = {split: functools.partial(read, path, split) for split, path in paths.items()}
    shares = text_of is not None and options.dev_fraction > 0 and options.folds is None
    if shares and "train" in readers and "dev" not in readers:
        share = functools.partial(_share, readers["train"], options.dev_fraction, text_of)
        readers = {"train": functools.partial(share, False), "dev": functools.partial(share, True)} | {
            split: reader for split, reader in readers.items() if split != "train"
        }
    return Sources(readers, what_is_missing(options, folders=folders, suffixes=suffixes))


def tfds_sources(
    options: TaskOptions, *, dataset: str, read: Callable[[Iterable[Mapping[str, Any]], Any, str], Examples]
) -> Sources:
    """Return the splits of a prepared TFDS dataset.

    Args:
        options: `tfds_data_dir`.
        dataset: TFDS's name of it, with its configuration.
        read: returns the examples of records (NumPy values), given also TFDS's features and the name of the split for
            messages.

    Raises:
        UserError: if the dataset is not prepared.
    """
    # TensorFlow takes seconds to load and is not needed to read files.
    from electra_jax.tasks import tfds

    builder = tfds.prepared_builder(dataset, options.tfds_data_dir)

    def examples(split: str) -> Examples:
        with tfds.sentences_of(f"{builder.info.full_name}, {split}"):
            return read(tfds.records(builder, split), builder.info.features, f"tfds:{dataset}:{split}")

    there = {
        split: next((name for name in names if name in builder.info.splits), None)
        for split, names in _TFDS_SPLITS.items()
    }
    readers = {split: functools.partial(examples, name) for split, name in there.items() if name is not None}
    return Sources(readers, f"TFDS's {dataset} has only {', '.join(builder.info.splits)}; set SOURCE = 'files'")


def _share(
    read: Callable[[], Examples], dev_fraction: float, text_of: Callable[[Any], str], held_out: bool
) -> Examples:
    """Return the examples that are held out of training, or the others; skipped ones are counted with the latter.

    As many are held out as `dev_fraction` says, unless examples with the same text would be divided.
    """
    whole = read()
    hashes = [text_hash(text_of(example)) for example in whole.examples]
    if len(set(hashes)) < 2 or dev_fraction >= 1:
        raise UserError(
            f"DEV_FRACTION = {dev_fraction} cannot divide {len(hashes)} training examples ({len(set(hashes))} "
            f"different ones) into two parts; change it, or name a DEV_FILE."
        )
    chosen = held_out_hashes(hashes, min(max(round(dev_fraction * len(hashes)), 1), len(hashes) - 1))
    kept = [example for example, value in zip(whole.examples, hashes, strict=True) if (value in chosen) == held_out]
    return Examples(kept, collections.Counter() if held_out else whole.skipped, whole.file)


def held_out_hashes(hashes: Sequence[int], number: int) -> set[int]:
    """Return the hashes of a number of examples: the smallest ones, leaving out texts that would make too many.

    If every text has more examples than that, it is the hash of the text with the fewest.
    """
    counts, chosen = collections.Counter(hashes), set()
    for value in sorted(counts):
        if counts[value] <= number:
            chosen.add(value)
            number -= counts[value]
    return chosen or {min(counts, key=counts.__getitem__)}
