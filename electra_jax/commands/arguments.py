"""Turn the arguments of commands that are not Gin bindings into bindings, and hold the help on how to use them."""

import argparse
from collections.abc import Sequence

from electra_jax.commands.gin_choice import bound, given_or_recorded
from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.run_directory import TOKENIZER, VOCABULARY

PREDICT_USAGE = """\
electra predict MODEL_DIR [INPUT]                    the first argument is the model, unless MODEL_DIR is bound:
electra predict --gin.MODEL_DIR='"runs/x"' [INPUT]   the same
electra predict --gin.MODEL_DIR='"runs/x"' --gin.SPLIT='"test"'
                                                     a whole split of the model's task, and the leaderboard's files

INPUT is a file if there is one of that name, standard input if it is - or left out, and otherwise the text itself. Each
input gives one record, in order: its `index` from 0, its `id` where it has one (ID_COLUMN), and the answer; or an
`error`, after which the job continues.

  a .csv, .tsv       columns as in training, TEXT_COLUMN (or "text") and TEXT_B_COLUMN (or "text_pair"); or those of
  or .parquet        question answering, "question" and "context"
  a .jsonl or .json  a JSON value a line, see below; an array of objects; SQuAD's or MRQA's files
  an .npz            arrays of token ids
  a tagged file      for a tagger, a word a line with a blank line after each sentence; tags in it are not read
  any other file     a text a line, whatever it begins with; JSON where the model reads no plain text
  standard input     a line at a time, as it comes: JSON objects and lists, and every other line a text

  {"text": "a sentence"}  or  "a sentence"           any model that reads text
  {"text": "a sentence", "text_pair": "another"}     a pair
  {"question": "...", "context": "..."}              question answering
  {"text": "...", "choices": ["...", "..."]}         multiple choice; a question on the text is its "text_pair"
  {"words": ["a", "sentence"]}                       tagging
  {"input_ids": [2, 9, 3]}  or  [2, 9, 3]            token ids, and attention_mask, token_type_ids

A fine-tuned model answers as its task does; a pre-trained one says which tokens were replaced (and fills in [MASK]);
for token ids every model gives its logits.
"""

EMBED_USAGE = """\
electra embed MODEL_DIR [INPUT]

INPUT is a file if there is one of that name, standard input if it is - or left out, and otherwise the text itself; see
electra predict --help. Each text gives one record, in order: its `index` from 0, its `id` where it has one, and its
`vector`; or an `error` (in a .npy a row of NaN), after which the job continues.
"""

SERVE_USAGE = """\
POST /predict    a JSON value in, as a line of electra predict's standard input, and its record out
                 {"inputs": [value, ...]} in, {"records": [record, ...]} out
GET /            a page to try the model on
GET /health, /metrics

Requests that wait are answered in one batch. SIGTERM ends the server once it has answered what it has taken.
"""


def place_predict_arguments(options: argparse.Namespace, bindings: Sequence[str]) -> list[str]:
    """Separate the model directory from the input: the first argument is the model, unless MODEL_DIR is bound.

    Args:
        options: `arguments` is read from it, and `input` is set on it: None if there is no input.
        bindings: Gin bindings of the command line.

    Returns:
        The bindings to add.

    Raises:
        UserError: if there are too few arguments, or too many.
    """
    rest, added = list(options.arguments), []
    if bound(bindings, "MODEL_DIR") is None:
        if not rest:
            raise UserError("electra predict needs a model: electra predict MODEL_DIR [INPUT], or --gin.MODEL_DIR=...")
        added.append(f"MODEL_DIR={rest.pop(0)!r}")
    if len(rest) > 1:
        raise UserError(
            f"electra predict reads one INPUT, and there are {len(rest)} ({', '.join(rest)}): put a sentence in quotes"
            + ("" if added else "; the model is already given by MODEL_DIR")
        )
    if rest and bound(bindings, "SPLIT") is not None:
        raise UserError(
            f"SPLIT predicts a split of the task, and the INPUT {rest[0]!r} something else: give one of them"
        )
    options.input = rest[0] if rest else None
    if options.batch_size is not None:
        added.append(f"BATCH_SIZE={options.batch_size}")
    return added


def place_inspect_arguments(options: argparse.Namespace, bindings: Sequence[str]) -> list[str]:
    """Return the binding of the tokenizer, which only the epoch counts need: the command line's or that of a model.

    Raises:
        UserError: if no file was given, and no model directory records how it was pre-trained.
    """
    tokenizer = bound(bindings, "VOCAB_FILE") or bound(bindings, "TOKENIZER")
    if tokenizer is None and not options.gin_file:
        (config,) = given_or_recorded([], bindings)
        files = (path_of(str(config)).parent / name for name in (VOCABULARY, TOKENIZER))
        tokenizer = next((str(file) for file in files if file.exists()), None)
    return [] if tokenizer is None else [f"VOCAB_FILE={tokenizer!r}"]


def place_serve_arguments(options: argparse.Namespace, bindings: Sequence[str]) -> list[str]:
    """Return the binding of the model directory that the first argument names; none if MODEL_DIR is bound.

    Raises:
        UserError: if both are given, or neither.
    """
    if (options.model is None) == (bound(bindings, "MODEL_DIR") is None):
        both = "" if options.model is None else f", and MODEL_DIR is also bound, in addition to {options.model}"
        raise UserError(f"electra serve needs one model: electra serve MODEL_DIR, or --gin.MODEL_DIR=...{both}")
    return [] if options.model is None else [f"MODEL_DIR={options.model!r}"]


def place_vocab_arguments(options: argparse.Namespace, bindings: Sequence[str]) -> list[str]:
    """Return the binding of the vocabulary that `--extend` names.

    Raises:
        UserError: if EXTEND is bound too.
    """
    if options.extend is None:
        return []
    if bound(bindings, "EXTEND") is not None:
        raise UserError(f"EXTEND is bound in addition to --extend {options.extend}: give one of them")
    return [f"EXTEND={options.extend!r}"]
