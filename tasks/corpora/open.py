"""Open a corpus by its name: embedded, text files, a TFDS or Hugging Face data set, or the original's TFRecords."""

import glob
import os
import re

from etils import epath

from electra_jax.errors import UserError
from electra_jax.files import is_remote, path_of
from electra_jax.tasks.corpora.corpus import Corpus, Document
from electra_jax.tasks.corpora.embedded import EmbeddedCorpus
from electra_jax.tasks.corpora.hub import fetch_dataset
from electra_jax.tasks.corpora.saved_dataset import saved_dataset_files
from electra_jax.tasks.corpora.text_files import TextFiles

__all__ = ["Corpus", "Document", "open_corpus"]

_TEXT_FORMATS = ("auto", "documents", "lines", "jsonl", "json", "csv", "tsv", "doc")


def open_corpus(corpus: str, *, text_format: str, text_field: str, skip_undecodable: bool) -> Corpus:
    """Open a corpus; only enough of it is read to show that it is not empty.

    Args:
        corpus: "embedded" (docstrings of the installed packages); "tfds:NAME[:split]" (a prepared dataset under
            TFDS_DATA_DIR; split "train" by default); "hf:ORG/NAME[:glob]" (a data set on the Hugging Face hub); a glob
            of files (text, tables, JSON, Parquet, Arrow, WET; compressed, or in .zip and .tar archives; `**` for any
            depth); the folder of a data set that `save_to_disk` wrote; or a glob of *.tfrecord* files written by the
            original TensorFlow builder. A glob may begin with gs://, and then supports no `**`.
        text_format: how text files are divided: "documents" (a blank line between documents), "lines" (a document a
            line), "jsonl" (a JSON object a line), "json" (a JSON array), "csv" or "tsv" (a table with a header), "doc"
            (wikiextractor's <doc>), or "auto" (as the first bytes of each file show).
        text_field: the field of records, the column of tables or the feature of TFDS examples that holds the text; a
            dot leads into nested records.
        skip_undecodable: whether lines that are not UTF-8 are left out and counted, instead of raising an error.

    Raises:
        UserError: if the corpus is not found, not readable or empty. Damage that is found later is raised by the corpus
            when it is read.
    """
    if text_format not in _TEXT_FORMATS:
        raise UserError(f"text_format {text_format!r} is none of {', '.join(_TEXT_FORMATS)}.")
    if corpus == "embedded":
        return EmbeddedCorpus()
    if corpus.startswith("tfds:"):
        from electra_jax.tasks.corpora.tfds_text import TfdsText  # imports TensorFlow: only where it is needed

        opened: Corpus = TfdsText(
            corpus.removeprefix("tfds:"), text_field=text_field, skip_undecodable=skip_undecodable
        )
    else:
        opened = _open_files(corpus, text_format=text_format, text_field=text_field, skip_undecodable=skip_undecodable)
    _require_content(opened)
    return opened


def _open_files(pattern: str, *, text_format: str, text_field: str, skip_undecodable: bool) -> Corpus:
    how = {"text_format": text_format, "text_field": text_field, "skip_undecodable": skip_undecodable}
    if pattern.startswith("hf:"):
        fetched, folder = fetch_dataset(pattern.removeprefix("hf:"))
        return TextFiles(map(path_of, fetched), root=path_of(folder), name=pattern, **how)
    pattern = name = os.path.expanduser(pattern)
    if (os.path.isdir(pattern) or not glob.has_magic(pattern)) and (paths := saved_dataset_files(path_of(pattern))):
        return TextFiles(paths, root=path_of(pattern), name=pattern, **how)
    if os.path.isfile(pattern):
        # An existing file's name, whatever pattern it would be.
        pattern = glob.escape(pattern)
    paths = _matching(pattern)
    if not paths:
        hint = f"; it is a folder: say which files, as in {pattern.rstrip('/')}/*.txt" if os.path.isdir(pattern) else ""
        if "[" in pattern:
            hint += "; a [ that belongs to a name is written [[]"
        place = "" if is_remote(pattern) else f" (looked from {os.getcwd()})"
        raise UserError(f"no file matches {pattern!r}{place}{hint}.")
    root = _folder_before_wildcards(pattern)
    tfrecords = [".tfrecord" in path.name for path in paths]
    if not any(tfrecords):
        return TextFiles(paths, root=root, name=name, **how)
    if not all(tfrecords):
        odd = paths[tfrecords.index(False)]
        raise UserError(f"{pattern!r} matches TFRecords and other files, such as {odd}; narrow it.")
    from electra_jax.tasks.corpora.original_tfrecords import OriginalTFRecords  # imports TensorFlow

    return OriginalTFRecords(paths, root=root, name=name)


def _matching(pattern: str) -> list[epath.Path]:
    """Return the files, sorted."""
    if not is_remote(pattern):
        found = [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
        return sorted(path_of(path) for path in found)
    if "**" in pattern:
        raise UserError(f"{pattern!r}: ** is not for gs://, where it would list a whole bucket; use * for each folder.")
    folder = _folder_before_wildcards(pattern)
    return sorted(path for path in folder.glob(pattern.removeprefix(f"{folder}/")) if not path.is_dir())


def _folder_before_wildcards(pattern: str) -> epath.Path:
    """Return the folder that keys leave out: a corpus that is moved as a whole keeps its keys."""
    return (
        path_of(re.split(r"[*?\[]", pattern, maxsplit=1)[0] + "_").parent
        if glob.has_magic(pattern)
        else path_of(pattern).parent
    )


def _require_content(corpus: Corpus) -> None:
    for unit in corpus.units:
        if next(corpus.examples(unit) if corpus.tokenised else corpus.documents(unit), None):
            corpus.skipped.clear()
            return
    left_out = ", ".join(f"{count} {what}" for what, count in corpus.skipped.items())
    raise UserError(
        f"the corpus {corpus.name} is empty: no document in {len(corpus.units)} "
        f"unit{'s'[: len(corpus.units) != 1]}{f' (left out: {left_out})' if left_out else ''}."
    )
