"""What `electra predict` and `electra evaluate` read of their command line before anything heavy is loaded."""

import json
from collections.abc import Sequence

from electra_jax.errors import UserError
from electra_jax.files import path_of

# Of `description`, which is heavy.
RECORD, RUN = "model.json", "config.gin"

PREDICT_HELP = """\
electra predict MODEL_DIR [INPUT]                    the first argument is the model, unless MODEL_DIR is bound:
electra predict --gin.MODEL_DIR='"runs/x"' [INPUT]   the same
electra predict --gin.MODEL_DIR='"runs/x"' --gin.SPLIT='"test"'
                                                     a whole split of the model's task, and the leaderboard's files

INPUT is a file if there is one of that name, standard input if it is - or left out, and otherwise the text itself. Of a
file, each line is an input, and JSON lines come out, in the same order:

  a sentence                                         any model that reads text
  {"text": "a sentence", "text_pair": "another"}     a pair
  {"question": "...", "context": "..."}              question answering
  {"words": ["a", "sentence"]}                       tagging
  {"input_ids": [2, 9, 3]}  or  [2, 9, 3]            token ids, and attention_mask, token_type_ids; or an .npz of them

A fine-tuned model answers as its task does; a pre-trained one says which tokens were replaced (and fills in [MASK]);
for token ids every model gives its logits.
"""


def bound(bindings: Sequence[str], name: str) -> str | None:
    """The text that the command line binds to a macro, without its quotes; None where it binds none."""
    values = [value.strip("\"' ") for key, _, value in (one.partition("=") for one in bindings) if key.strip() == name]
    return values[-1] if values and values[-1] != "None" else None


def place_predict_arguments(arguments: Sequence[str], bindings: Sequence[str]) -> tuple[list[str], str | None]:
    """Tells the model directory from the input: the first argument is the model, unless MODEL_DIR is bound.

    Returns:
        The bindings with MODEL_DIR, and the input (None where there is none).

    Raises:
        UserError: too few arguments, or too many.
    """
    rest, known = list(arguments), list(bindings)
    if bound(bindings, "MODEL_DIR") is None:
        if not rest:
            raise UserError("electra predict needs a model: electra predict MODEL_DIR [INPUT], or --gin.MODEL_DIR=...")
        known.append(f"MODEL_DIR={rest.pop(0)!r}")
    if len(rest) > 1:
        raise UserError(
            f"electra predict reads one INPUT, and there are {len(rest)} ({', '.join(rest)}): put a sentence in quotes"
            + ("; the model is already given by MODEL_DIR" if len(known) == len(bindings) else "")
        )
    if rest and bound(bindings, "SPLIT") is not None:
        raise UserError(
            f"SPLIT predicts a split of the task, and the INPUT {rest[0]!r} something else: give one of them"
        )
    return known, rest[0] if rest else None


def evaluates_task(bindings: Sequence[str]) -> bool:
    """Whether `electra evaluate` is to score a downstream task, rather than a pre-training run."""
    directory = bound(bindings, "MODEL_DIR")
    asked = any(bound(bindings, name) is not None for name in ("TASK", "PREDICTIONS"))
    return asked or (directory is not None and is_fine_tuned(directory))


def is_fine_tuned(directory: str) -> bool:
    """Whether a model directory records a fine-tuning head."""
    try:
        record = json.loads((path_of(directory) / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("head") is not None


def gin_files(default: str, given: Sequence[str], bindings: Sequence[str]) -> list[str]:
    """The Gin files of a run on a model: what the fine-tuning recorded stands between the defaults and the user's."""
    directory = bound(bindings, "MODEL_DIR")
    recorded = []
    # What T5X recorded beside its own checkpoints (`stored.is_of_t5x`) is Gin for T5X's scripts.
    places = [] if directory is None else [path_of(directory) / name for name in ("checkpoints", RUN)]
    if directory is not None and is_fine_tuned(directory) and all(place.exists() for place in places):
        recorded = [str(path_of(directory) / RUN)]
    return [default, *recorded, *(file for file in given if file != default)]
