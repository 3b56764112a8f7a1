"""Classify texts by prompts: which label's word does the discriminator find most original in a template?

Xia et al., "Prompting ELECTRA" (2022), section 3; Yao et al., "Prompt tuning for discriminative pre-trained language
models" (2022), section 3. The replaced-token head is used, and no new head is added.
"""

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.errors import UserError
from electra_jax.tasks.joined_rows import joined_rows
from electra_jax.tasks.long_texts import count_fields
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.probabilities import softmax
from electra_jax.tasks.protocol import Row
from electra_jax.tasks.qa.answers import tokenize_context
from electra_jax.tasks.split_files import NO_SOURCES, Sources
from electra_jax.tasks.text.metrics import own_metrics
from electra_jax.tasks.text.sources import table_sources
from electra_jax.tasks.text.tables import Classes, TextExample, pair_lengths
from electra_jax.tasks.text.task import LabelPrediction, TextRules, TextTask, main_first
from electra_jax.tasks.vocabulary import Vocabulary

PROMPT = "prompt"

# The slots of a template that are filled.
_SLOT = re.compile(r"\{(text|text_b|label)\}")

Span = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A template with {text}, {label} and, for pairs, {text_b}; and the word of each label, in label order."""

    template: str
    words: tuple[str, ...]

    @property
    def pair(self) -> bool:
        """Return whether examples are pairs of texts."""
        return "{text_b}" in self.template

    def filled(self, example: TextExample, word: str) -> tuple[str, dict[str, Span]]:
        """Fill the template with an example's texts and a word; return it with the characters of each slot."""
        values = {"text": example.text_a, "text_b": example.text_b or "", "label": word}
        # Every second part is the name of a slot.
        parts, text, places = _SLOT.split(self.template), "", {}
        for number, part in enumerate(parts):
            value = values[part] if number % 2 else part
            if number % 2:
                places[part] = len(text), len(text) + len(value)
            text += value
        return text, places


@dataclasses.dataclass(frozen=True)
class Classified(Classes):
    """The labels that have a word."""

    @property
    def expected(self) -> str:
        """Describe the allowed labels of a row."""
        return f"{super().expected}, the labels to which LABEL_WORDS gives a word"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptTask(TextTask):
    """A classification by prompts: a `protocol.DownstreamTask`, whose model is a discriminator.

    Attributes:
        prompt: the template and its words.
    """

    prompt: Prompt

    @property
    def kind(self) -> str:
        """Return "prompt"."""
        return PROMPT

    def rows(self, examples: Sequence[TextExample], *, training: bool) -> list[Row]:
        """Tokenise the template, filled for each label: `word_mask` is 1 at the pieces of the label's word.

        In training an example with a label is one row of arrays [C, L]. Otherwise each label is a row, with its number,
        `choice`. Texts that are too long are cut at the end.

        Raises:
            UserError: if the template alone is longer than a row.
        """
        rows = []
        for number, example in enumerate(examples):
            if training and example.label is None:
                continue
            apart, counts = zip(*(self._row(example, word) for word in self.prompt.words), strict=True)
            shared = {"example": np.array(number, np.int32)} | max(counts, key=lambda count: int(count["num_tokens"]))
            if example.label is not None:
                shared["label"] = np.array(example.label, np.int32)
            if training:
                joined = joined_rows(apart, len(apart))
                # Every example has every label, so the mask is not needed.
                del joined["choice_mask"]
                rows.append(joined | shared)
            else:
                rows += [row | shared | {"choice": np.array(place, np.int32)} for place, row in enumerate(apart)]
        return rows

    def predictions(
        self, examples: Sequence[TextExample], rows: Sequence[Row], outputs: Sequence[Mapping[str, np.ndarray]]
    ) -> list[LabelPrediction]:
        """Return a prediction for each example.

        A label's score is the mean, over the pieces of its word, of the log-probability that the piece is original. The
        probabilities are the softmax of these scores.

        Args:
            examples: as they were given to `rows`.
            rows: the rows for prediction, in any order.
            outputs: the outputs of each row: `logits`, float32 [L], positive where a token looks replaced.
        """
        scores_NC = np.zeros((len(examples), len(self.labels)))
        for row, output in zip(rows, outputs, strict=True):
            logits_P = output["logits"][row["word_mask"] > 0].astype(np.float64)
            scores_NC[int(row["example"]), int(row["choice"])] = -np.mean(np.logaddexp(0.0, logits_P))
        return [
            LabelPrediction(
                self.labels[int(np.argmax(scores_C))],
                dict(zip(self.labels, map(float, softmax(scores_C)), strict=True)),
            )
            for scores_C in scores_NC
        ]

    def describe(self) -> dict[str, Any]:
        """Return the facts that `prompt_task_from_facts` needs."""
        return super().describe() | {"template": self.prompt.template, "words": list(self.prompt.words)}

    def _row(self, example: TextExample, word: str) -> tuple[Row, Row]:
        """Return the tokens of the filled template, with a mask of the word's pieces, and the counts of cut tokens."""
        text, places = self.prompt.filled(example, word)
        tokenized = tokenize_context(self.vocabulary, text)
        starts_T, ends_T = tokenized.offsets_T2.T
        of_word_T = (starts_T < places["label"][1]) & (ends_T > places["label"][0])
        excess = max(0, len(tokenized.ids_T) - (self.length - 2))
        kept_T = np.ones(len(tokenized.ids_T), bool)
        if excess:
            within = [
                np.flatnonzero((starts_T >= places[name][0]) & (ends_T <= places[name][1]) & ~of_word_T)
                for name in ("text", "text_b")
                if name in places
            ]
            first, second = within if len(within) == 2 else (*within, np.zeros(0, int))
            room = len(first) + len(second) - excess
            if room < 0:
                raise UserError(
                    f"TEMPLATE takes {len(tokenized.ids_T) - len(first) - len(second) + 2} tokens without the text, "
                    f"and rows hold {self.length}: shorten it, or set a larger MAX_SEQ_LENGTH"
                )
            kept_first, kept_second = pair_lengths(len(first), len(second), room)
            kept_T[np.concatenate([first[kept_first:], second[kept_second:]])] = False
        ids = [self.vocabulary.cls_id, *tokenized.ids_T[kept_T].tolist(), self.vocabulary.sep_id]
        row = {
            "input_ids": np.array(ids, np.int32),
            "token_type_ids": np.zeros(len(ids), np.int32),
            "word_mask": np.array([False, *of_word_T[kept_T], False], np.float32),
        }
        return row, count_fields(len(tokenized.ids_T), excess)


def make_prompt_task(
    options: TaskOptions, vocabulary: Vocabulary, *, rules: TextRules, recorded: Mapping[str, Any] | None = None
) -> PromptTask:
    """Make a task with its data, a user's own tables.

    Args:
        options: the prompt, and where the data is.
        vocabulary: tokenises the text.
        rules: the rules of scoring, where implementations differ.
        recorded: the result of `PromptTask.describe` for the task on which a model was fine-tuned, whose prompt is
            taken if the options have none.

    Raises:
        UserError: if there is no data, or the prompt or the settings do not say how to read it.
    """
    task = prompt_task(options, vocabulary, rules=rules, recorded=recorded)
    if task.pair != (options.text_b_column is not None):
        raise UserError(
            f"TEMPLATE has {'a' if task.pair else 'no'} {{text_b}}, and TEXT_B_COLUMN is {options.text_b_column!r}: "
            "a pair of texts needs both"
        )
    if options.label_column is not None and not isinstance(options.label_column, str):
        raise UserError(f"LABEL_COLUMN is {options.label_column!r}: prompts read one column of labels")
    sources, _ = table_sources(options, regression=False, target=task.target)
    return dataclasses.replace(task, sources=sources)


def prompt_task(
    options: TaskOptions, vocabulary: Vocabulary, *, rules: TextRules, recorded: Mapping[str, Any] | None = None
) -> PromptTask:
    """Make a task that reads raw texts, without data; see `make_prompt_task`.

    Raises:
        UserError: if the template or the words cannot be used.
    """
    if recorded is not None and options.template is None:
        return prompt_task_from_facts(recorded, vocabulary, rules=rules)
    if options.long_texts != "cut":
        raise UserError(f"LONG_TEXTS is {options.long_texts!r}: a prompt is one row for each label; set it to 'cut'")
    words = options.label_words or {}
    if len(words) < 2 or not all(isinstance(word, str) and word.strip() for pair in words.items() for word in pair):
        raise UserError(
            f"LABEL_WORDS is {options.label_words!r}: give each label of the data a word, at least two, as in "
            "{'0': 'terrible', '1': 'great'}"
        )
    prompt = Prompt(checked_template(options.template), tuple(words.values()))
    check_words(prompt.words, vocabulary)
    target = Classified(tuple(words))
    return _task(prompt, target, main_first(own_metrics(target), options), options.row_length, vocabulary, rules)


def prompt_task_from_facts(facts: Mapping[str, Any], vocabulary: Vocabulary, *, rules: TextRules) -> PromptTask:
    """Rebuild a task from the result of `PromptTask.describe`, to read raw input; `rules` are those that it names.

    Raises:
        UserError: if `describe` cannot have returned the facts.
    """
    prompt = Prompt(checked_template(facts["template"]), tuple(facts["words"]))
    if len(prompt.words) != len(facts["target"]):
        raise UserError(f"{len(prompt.words)} words for {len(facts['target'])} labels: a prompt has one for each")
    return _task(
        prompt, Classified(tuple(facts["target"])), tuple(facts["metrics"]), facts["length"], vocabulary, rules
    )


def _task(
    prompt: Prompt,
    target: Classes,
    metrics: tuple[str, ...],
    length: int,
    vocabulary: Vocabulary,
    rules: TextRules,
    sources: Sources = NO_SOURCES,
) -> PromptTask:
    return PromptTask(
        name=PROMPT,
        prompt=prompt,
        target=target,
        thresholds=None,
        pair=prompt.pair,
        clips=False,
        metrics=metrics,
        rules=rules,
        vocabulary=vocabulary,
        length=length,
        long_texts="cut",
        sources=sources,
    )


def checked_template(template: str | None) -> str:
    """Return a template that can be filled.

    Raises:
        UserError: if {text} or {label} does not occur exactly once, or {text_b} occurs more than once.
    """
    counts = collections.Counter(_SLOT.findall(template or ""))
    wrong = [f"{{{name}}} {counts[name]} times" for name in ("text", "label") if counts[name] != 1]
    wrong += [f"{{text_b}} {counts['text_b']} times"] * (counts["text_b"] > 1)
    if template is None or wrong:
        has = "" if template is None else f" and has {' and '.join(wrong)}"
        raise UserError(
            f"TEMPLATE is {template!r}{has}: write {{text}} and {{label}} once each, as in '{{text}} It was {{label}}.'"
        )
    return template


def check_words(words: Sequence[str], vocabulary: Vocabulary) -> None:
    """Check that the words of labels can be told apart by their tokens in the vocabulary.

    Raises:
        UserError: if a word has no tokens or an unknown one, or two words have the same tokens.
    """
    known: dict[tuple[int, ...], str] = {}
    for word, ids in zip(words, map(tuple, vocabulary.encode_batch(words)), strict=True):
        if not ids or vocabulary.special_ids.get("unk") in ids:
            raise UserError(
                f"LABEL_WORDS has {word!r}, of which the model's vocabulary knows {'a part' if ids else 'nothing'}: "
                "choose another word"
            )
        if ids in known:
            raise UserError(
                f"LABEL_WORDS has {known[ids]!r} and {word!r}, which the model's vocabulary reads alike: choose others"
            )
        known[ids] = word
