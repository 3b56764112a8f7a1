"""Divide the examples of a split into two parts that share no text, and tell which examples can be scored."""

import logging
from collections.abc import Sequence
from typing import Any

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.corpus import text_hash
from electra_jax.tasks.multiple_choice.examples import ChoiceExample
from electra_jax.tasks.qa.questions import QAExample
from electra_jax.tasks.split_files import held_out_hashes
from electra_jax.tasks.tagging.sentences import TaggedSentence
from electra_jax.tasks.text.tables import TextExample

logger = logging.getLogger(__name__)

# With fewer examples, each is more than a hundredth of them.
_FEW_EXAMPLES = 100


def has_gold(example: Any) -> bool:
    """Return whether an example has a gold answer."""
    if isinstance(example, QAExample):
        return example.is_impossible or bool(example.gold_texts)
    if isinstance(example, TaggedSentence):
        return bool(example.tags)
    if isinstance(example, (TextExample, ChoiceExample)):
        return example.label is not None
    # From SeqIO's registry, in which a leaderboard's test split has the class -1, or no targets.
    unknown = example.label is None or (isinstance(example.label, int) and example.label < 0)
    return bool(example.tags) or not unknown


def warn_of_few(number: int, name: str) -> None:
    """Warn if a part of the examples is so small that its scores say little.

    Args:
        number: number of examples.
        name: name of the part, such as "dev".
    """
    if number < _FEW_EXAMPLES:
        logger.warning(
            "the %s split has only %d example%s; each is %.0f %% of it, and a score of 100.00 may be luck: name a "
            "larger file, or hold out more with DEV_FRACTION",
            name,
            number,
            "" if number == 1 else "s",
            100 / number,
        )


def halves(examples: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Divide examples by the hashes of their texts into two halves, equal unless examples of one text would be split.

    The texts of a pair count in any order, and questions and choices by their context, so that scores on one half do
    not profit from texts of the other.

    Raises:
        UserError: if all examples have the same text.
    """
    hashes = [text_hash(shared_text(example)) for example in examples]
    if len(set(hashes)) < 2:
        raise UserError(
            f"the {len(examples)} dev examples have {len(set(hashes))} different texts, too few for some that choose "
            "the checkpoint and some that score it: set --gin.SELECTION='\"last\"', or name a larger DEV_FILE, or a "
            "TEST_FILE with labels"
        )
    chosen = held_out_hashes(hashes, len(hashes) // 2)
    parts: tuple[list[Any], list[Any]] = ([], [])
    for example, value in zip(examples, hashes, strict=True):
        parts[value not in chosen].append(example)
    return parts


def shared_text(example: Any) -> str:
    """Return the text by which examples belong together."""
    if isinstance(example, QAExample):
        return example.context
    if isinstance(example, TaggedSentence):
        return " ".join(example.words)
    if isinstance(example, ChoiceExample):
        return example.text_a
    # These are our examples of texts, and those of SeqIO's registry.
    return "\t".join(sorted((example.text_a, example.text_b or "")))
