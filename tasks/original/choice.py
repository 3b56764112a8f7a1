"""Choose the rules that tasks follow where implementations differ, by a name that Gin binds or a model records."""

from collections.abc import Mapping
from typing import Any, TypeVar

from electra_jax.errors import UserError
from electra_jax.tasks.original import packing as original_packing
from electra_jax.tasks.original import qa as original_qa
from electra_jax.tasks.original import tagging as original_tagging
from electra_jax.tasks.original import text as original_text
from electra_jax.tasks.pretraining import packing
from electra_jax.tasks.pretraining.packing import ExampleBuilder
from electra_jax.tasks.qa import windows
from electra_jax.tasks.qa.windows import QARules
from electra_jax.tasks.tagging import sentences
from electra_jax.tasks.tagging.sentences import TaggingRules
from electra_jax.tasks.text import task
from electra_jax.tasks.text.task import TextRules
from electra_jax.tasks.vocabulary import Vocabulary

# "standard" rules are this project's; "original" ones those of google-research/electra, faults included.
NAMES = ("standard", "original")

# The settings that version 0.1 recorded one by one for a fine-tuned model, with the original's value of each.
_RECORDED_BY_0_1 = {
    "gold_counts_predicted": True,
    "span_reader": "reference",
    "alignment": "reference",
    "token_type_id": 1,
    "word_aligned_answers": True,
    "answerless_windows_are_answerable": True,
    "disjoint_windows": True,
    "drop_empty_contexts": True,
    "final_sep_is_answerable": True,
    "project_words": True,
    "no_span_text": "empty",
    "skip_unanswered": True,
}

# The behaviour of models that did not record it, by the kind of their task.
_RECORDED_WITHOUT = {
    **{
        kind: {"long_texts": "cut", "clips": True, "thresholds": None}
        for kind in ("classification", "multi_label_classification", "regression")
    },
    "tagging": {"long_texts": "cut"},
    "question_answering": {"metric": "squad"},
}

_Chosen = TypeVar("_Chosen")


def example_builder(name: str) -> ExampleBuilder:
    """Return the builder of pre-training examples from documents: "complete" or "original".

    Raises:
        UserError: if there is no builder of that name.
    """
    return _named(name, "example_building", packing.COMPLETE, original_packing.BUILDER)


def text_rules(name: str) -> TextRules:
    """Return the rules of that name for classification and regression.

    Raises:
        UserError: if there are no rules of that name.
    """
    return _named(name, "rules", task.STANDARD_RULES, original_text.RULES)


def tagging_rules(name: str) -> TaggingRules:
    """Return the rules of that name for tagging.

    Raises:
        UserError: if there are no rules of that name.
    """
    return _named(name, "rules", sentences.STANDARD_RULES, original_tagging.RULES)


def qa_rules(name: str) -> QARules:
    """Return the rules of that name for question answering.

    Raises:
        UserError: if there are no rules of that name.
    """
    return _named(name, "rules", windows.STANDARD_RULES, original_qa.RULES)


def check_vocabulary(name: str, vocabulary: Vocabulary) -> None:
    """Refuse the original's rules with a tokenizer other than BERT's, whose word pieces they take apart.

    Raises:
        UserError: if the rules are the original's, and the vocabulary is that of another tokenizer.
    """
    if name == "original" and vocabulary.lowercase is None:
        raise UserError(
            "the rules 'original' take BERT's word pieces apart, and this tokenizer is another: set rules to "
            "'standard', or name a vocab.txt"
        )


def current_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a fine-tuned model's record of its task to this version's form, with the name of its `rules`.

    Version 0.1 recorded each rule separately.

    Args:
        facts: the result of `DownstreamTask.describe`, in this version or in 0.1.

    Raises:
        UserError: if some of the rules are the original's and others are not.
    """
    facts = _RECORDED_WITHOUT.get(facts.get("kind", ""), {}) | dict(facts)
    if "rules" in facts or facts.get("registered"):
        return facts
    groups = {"": facts, "windows": facts.get("windows", {}), "decoding": facts.get("decoding", {})}
    found = {
        name: group[name] == value
        for group in groups.values()
        for name, value in _RECORDED_BY_0_1.items()
        if name in group
    }
    if len(set(found.values())) > 1:
        single = ", ".join(name for name, as_original in found.items() if as_original)
        raise UserError(
            f"the model was fine-tuned by version 0.1 with some of the original's rules ({single}), and this version "
            "has all of them or none: load it with version 0.1, or fine-tune it again"
        )
    kept = {
        name: {key: value for key, value in group.items() if key not in _RECORDED_BY_0_1}
        for name, group in groups.items()
    }
    nested = {name: kept[name] for name in ("windows", "decoding") if name in facts}
    return kept[""] | nested | {"rules": "original" if any(found.values()) else "standard"}


def _named(name: str, field: str, *choices: _Chosen) -> _Chosen:
    by_name = {each.name: each for each in choices}
    if name not in by_name:
        raise UserError(f"{field} is {name!r}: it must be one of {', '.join(map(repr, by_name))}")
    return by_name[name]
