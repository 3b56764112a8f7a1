"""`electra score MODEL_DIR INPUT`: scores sentences by Electric's pseudo-log-likelihood, a JSON object each."""

import argparse

import electra_jax
from electra_jax.errors import UserError
from electra_jax.inference import electric_scores
from electra_jax.inference.input_files import SORTED_BATCHES, read_items
from electra_jax.inference.items import InputColumns, Item
from electra_jax.inference.output_files import record_writer
from electra_jax.runtime import keep_compilations


def run(options: argparse.Namespace) -> None:
    """Print the score of each sentence, in order; blank lines are left out.

    Raises:
        UserError: if Electric did not train the model, or a sentence cannot be read.
    """
    if options.batch_size < 1:
        raise UserError(f"--batch_size {options.batch_size}: it must be at least 1")
    keep_compilations()
    model = electra_jax.load(options.model)
    # Check before reading the input, which a person may be typing.
    electric_scores.check_electric(model)
    columns = InputColumns(None, None, None, None)
    with record_writer(None) as output:
        for items in read_items(options.input, model, columns, most=SORTED_BATCHES * options.batch_size):
            sentences = [sentence_of(item) for item in items if not is_blank(item)]
            for record in model.score(sentences, batch_size=options.batch_size):
                output.write(record)


def is_blank(item: Item) -> bool:
    """Return whether an input is a text of nothing but white space."""
    return isinstance(item.value, str) and not item.value.strip()


def sentence_of(item: Item) -> str | list[int]:
    """Return the text or the token ids of an input.

    Raises:
        UserError: if the input cannot be read, or is a pair of texts.
    """
    if item.error is not None:
        raise UserError(item.error)
    if item.ids is not None:
        return item.ids["input_ids"]
    if not isinstance(item.value, str):
        raise UserError(f"a sentence is scored by itself, and {item.value!r} is a pair: join its texts")
    return item.value.strip()
