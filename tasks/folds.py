"""Divide a task's training examples into folds, each of which is the dev split once: cross-validation."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.corpus import text_hash
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.parts import shared_text
from electra_jax.tasks.protocol import DownstreamTask, Examples
from electra_jax.tasks.qa.questions import QAExample
from electra_jax.tasks.tagging.sentences import TaggedSentence


def in_folds(task: DownstreamTask, options: TaskOptions) -> DownstreamTask:
    """Return a task whose dev split is the fold `options.fold` of its training examples; the others are for training.

    Args:
        task: a task with all examples in its training split, and no dev split.
        options: `folds`, `fold` and `fold_seed`.

    Raises:
        UserError: if there is no such fold, or the task has a dev split of its own or is from SeqIO's registry.
    """
    folds, fold = options.folds, options.fold
    if folds is None:
        raise UserError(f"FOLD = {fold} is one of FOLDS, which is not set: set both, or neither")
    if fold is None or fold >= folds:
        raise UserError(
            f"FOLD is {fold}: with FOLDS = {folds} it is from 0 to {folds - 1}, or None in electra finetune for all of "
            "them, one after the other"
        )
    sources = getattr(task, "sources", None)
    if sources is None:
        raise UserError(f"FOLDS divides the examples of files, and {task.name} is of SeqIO's registry: leave it out")
    if any(split.startswith("dev") for split in sources.readers):
        raise UserError(
            f"FOLDS = {folds} takes dev splits from the training examples, and {task.name} has a dev split of its own: "
            "leave FOLDS or the dev file out (to leave out one that is found in DATA_DIR, name the TRAIN_FILE alone)"
        )
    part = functools.partial(_part, functools.partial(sources.read, task.name, "train"), options, task.kind)
    readers = {**sources.readers, "train": functools.partial(part, False), "dev": functools.partial(part, True)}
    return dataclasses.replace(task, sources=dataclasses.replace(sources, readers=readers))  # type: ignore[type-var]


def draw_folds(texts: Sequence[str], strata: Sequence[Hashable], *, folds: int, seed: int) -> list[int]:
    """Draw the fold of each example, so that examples of one text share a fold.

    Texts are dealt out stratum by stratum; within a stratum, those with the most examples come first, then in the order
    of a hash. Each goes to the fold that has fewest of its stratum, among equal folds to the smallest. If no two
    examples share a text, the sizes of the folds and their shares of each stratum differ by at most one example.

    Args:
        texts: the text of each example; examples with the same text belong together.
        strata: the property, such as the label, of which each fold gets its share; a text counts by its most frequent.
        folds: number of folds.
        seed: seed of the draw.

    Raises:
        UserError: if there are fewer different texts than folds.
    """
    members: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        members.setdefault(text, []).append(number)
    if len(members) < folds:
        raise UserError(
            f"FOLDS = {folds} cannot divide {len(texts)} training examples of {len(members)} different texts: set "
            f"FOLDS to {len(members)} or less"
        )
    stratum_of = {
        text: collections.Counter(strata[number] for number in numbers).most_common(1)[0][0]
        for text, numbers in members.items()
    }
    order = sorted(
        members,
        key=lambda text: (repr(stratum_of[text]), -len(members[text]), text_hash(f"{seed}\n{text}")),
    )
    sizes = [0] * folds
    shares = {stratum: [0] * folds for stratum in stratum_of.values()}
    found = [0] * len(texts)
    for text in order:
        share = shares[stratum_of[text]]
        fold = min(range(folds), key=list(zip(share, sizes, strict=True)).__getitem__)
        share[fold] += len(members[text])
        sizes[fold] += len(members[text])
        for number in members[text]:
            found[number] = fold
    return found


def strata_of(kind: str, examples: Sequence[Any], folds: int) -> list[Hashable]:
    """Return the property of each example of which each fold gets its share.

    It is the class, the set of labels, the types of a sentence's tags, whether a question has an answer, or, for
    values, their rank: of as many neighbours in rank as there are folds, each fold gets one.

    Args:
        kind: the task's kind, one of `protocol.KINDS`.
        examples: examples with gold answers.
        folds: number of folds.
    """
    if kind in ("regression", "similarity"):
        values = [example.label for example in examples]
        places = {number: place for place, number in enumerate(sorted(range(len(values)), key=values.__getitem__))}
        return [places[number] // folds for number in range(len(values))]
    return [_stratum(kind, example) for example in examples]


def _stratum(kind: str, example: Any) -> Hashable:
    if isinstance(example, QAExample):
        return example.is_impossible
    if isinstance(example, TaggedSentence):
        return tuple(sorted({tag.partition("-")[2] or tag for tag in example.tags}))
    # All pairs of retrieval have the same label.
    return None if kind == "retrieval" else example.label


def _part(read: Callable[[], Examples], options: TaskOptions, kind: str, held_out: bool) -> Examples:
    """Return the examples of the fold, or all others; skipped examples are counted with the latter."""
    whole = read()
    folds = draw_folds(
        [shared_text(example) for example in whole.examples],
        strata_of(kind, whole.examples, options.folds),
        folds=options.folds,
        seed=options.fold_seed,
    )
    chosen = [
        example for example, fold in zip(whole.examples, folds, strict=True) if (fold == options.fold) == held_out
    ]
    return Examples(chosen, collections.Counter() if held_out else whole.skipped, whole.file)
