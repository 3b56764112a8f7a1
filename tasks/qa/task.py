"""Define question answering as a task to fine-tune on: SQuAD, MRQA's parts, and a user's own SQuAD-format file."""

import collections
import dataclasses
import logging
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from electra_jax.errors import UserError
from electra_jax.tasks.long_texts import count_fields
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.protocol import Examples, Row
from electra_jax.tasks.qa import metrics
from electra_jax.tasks.qa.answers import UnusableAnswerError, is_where_it_says
from electra_jax.tasks.qa.decoding import (
    Candidates,
    DecodingConfig,
    QAPrediction,
    decode,
    final_answers,
    independent_candidates,
    joint_candidates,
    write_predictions,
)
from electra_jax.tasks.qa.questions import QAExample, raw_example
from electra_jax.tasks.qa.sources import check_answered, metric_of, qa_sources, scoring_of
from electra_jax.tasks.qa.windows import QARules, WindowConfig, answer_tokens, prediction_windows, training_windows
from electra_jax.tasks.split_files import NO_SOURCES, FromSources, Sources, reads_tfds
from electra_jax.tasks.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class QATask(FromSources):
    """Questions about contexts: a `protocol.DownstreamTask`.

    Attributes:
        name: its name in the catalogue.
        scoring: whose scoring applies: "squad_v1", "squad_v2" (questions may have no answer) or "mrqa".
        metric: the name of the metric that compares answers, see `metrics.METRICS`.
        vocabulary: tokenises questions and contexts.
        windows, decoding: how contexts are cut, and how spans become answers.
        null_threshold: null odds above it mean that there is no answer; None until `fit_threshold` has found it.
        sources: its splits.
    """

    name: str
    scoring: str
    metric: str
    vocabulary: Vocabulary
    windows: WindowConfig
    decoding: DecodingConfig
    null_threshold: float | None
    sources: Sources

    kind: ClassVar[str] = "question_answering"
    labels: ClassVar[tuple[str, ...]] = ()

    @property
    def rules(self) -> QARules:
        """Return the rules for which answers are learnt and how they are written."""
        return self.windows.rules

    @property
    def main_metric(self) -> str:
        """Return the name of F1; for SQuAD 2.0 that at the best threshold, which does not depend on an earlier one."""
        return "best_f1" if self.scoring == "squad_v2" else "f1"

    @property
    def length(self) -> int:
        """Return the most tokens of a window."""
        return self.windows.max_sequence_length

    def examples(self, split: str) -> Examples:
        """Read a split; from "train", questions that cannot be learnt are left out and counted by reason.

        These are questions without an answer that are not marked as impossible, or whose answer is not in the context.

        Raises:
            UserError: if there is no such split or file, the file is malformed, or no question is left.
        """
        whole = self.sources.read(self.name, split)
        if split != "train":
            return whole
        kept, skipped = [], collections.Counter(whole.skipped)
        moved: list[QAExample] = []
        for example in whole.examples:
            try:
                if not example.is_impossible:
                    answer_tokens(example, self.vocabulary, self.rules)
            except UnusableAnswerError as error:
                skipped[str(error)] += 1
            else:
                kept.append(example)
                if example.answers and not is_where_it_says(example.context, example.answers[0]):
                    moved.append(example)
        if not kept:
            reasons = "; ".join(f"{reason}: {number}" for reason, number in skipped.items())
            raise UserError(f"{self.name}: none of the training questions can be learnt ({reasons}); correct the file")
        if moved:
            logger.warning(
                "%s: %d of %d training answers are not where 'answer_start' says, or it is not said, such as that of "
                "question %r: the nearest place of the same text in the context is learnt, or the first.",
                self.name, len(moved), len(kept), moved[0].example_id,
            )  # fmt: skip
        return Examples(kept, skipped)

    def raw_examples(self, inputs: Iterable[Mapping[str, str]]) -> list[QAExample]:
        """Return the questions of a user: {"question": ..., "context": ...}, with an optional "id".

        Raises:
            UserError: if a field is missing or is not a text.
        """
        return [raw_example(record, f"input {number}") for number, record in enumerate(inputs, start=1)]

    def rows(self, examples: Sequence[QAExample], *, training: bool) -> list[Row]:
        """Return a row per window, int32.

        `window` is the row's number among those of its example, and the counted tokens are the question's. In training,
        questions that cannot be learnt have no rows; otherwise rows have no targets.

        Raises:
            UserError: if a question leaves no room for its context.
        """
        rows, limit = [], self.windows.max_question_length
        for number, example in enumerate(examples):
            try:
                cut = training_windows if training else prediction_windows
                windows = cut(example, self.vocabulary, self.windows)
            except UnusableAnswerError:
                continue
            for window in windows:
                features = window.features()
                # The batch makes its own mask, because it pads rows.
                del features["attention_mask"]
                place = {"example": np.array(number, np.int32), "window": np.array(window.index, np.int32)}
                counts = count_fields(window.question_tokens, max(0, window.question_tokens - limit))
                rows.append(features | place | counts | {"question_length": np.array(limit, np.int32)})
        return rows

    def predictions(
        self, examples: Sequence[QAExample], rows: Sequence[Row], outputs: Sequence[dict[str, np.ndarray]]
    ) -> list[QAPrediction]:
        """Return an answer to each question from the outputs of either question-answering head for its windows.

        Null odds are the answerability head's logit, or, without one, the score of [CLS] as a span minus the best
        span's; with the joint head, which scores no empty span, the score of starting at [CLS].

        Args:
            examples: the questions.
            rows: `rows(examples, training=False)`, in any order.
            outputs: the outputs of each row, with or without those for padding.

        Raises:
            UserError: if a score is NaN.
        """
        found = {
            (int(row["example"]), int(row["window"])): {
                name: output[: len(row["input_ids"])] if name in ("start_logits", "end_logits") else output
                for name, output in row_outputs.items()
            }
            for row, row_outputs in zip(rows, outputs, strict=True)
        }
        predictions = []
        for number, example in enumerate(examples):
            windows = prediction_windows(example, self.vocabulary, self.windows)
            scores = [found[number, window.index] for window in windows]
            null_scores, decoding = None, self.decoding
            if self.scoring == "squad_v2":
                null_scores = [_null_score(output) for output in scores]
                by_span = any("answerable_logit" not in output for output in scores)
                decoding = dataclasses.replace(decoding, null_odds_against_best_span=by_span)
            spans = [self._candidates(output) for output in scores]
            prediction = decode(example, windows, spans, null_scores, self.vocabulary, decoding)
            predictions.append(dataclasses.replace(prediction, null_threshold=self.null_threshold))
        return predictions

    def score(self, examples: Sequence[QAExample], predictions: Sequence[QAPrediction]) -> dict[str, float]:
        """Return the official scores in per cent, the main one first.

        SQuAD 2.0: `best_f1` and `best_exact` with their thresholds, as found on these predictions; the others at
        `null_threshold`, or, if it is None, at the best one for F1.

        Raises:
            UserError: if the questions have no gold answers, as in a test split.
        """
        by_question = _by_question(examples, predictions)
        odds, threshold = None, self.null_threshold
        if self.scoring == "squad_v2":
            odds = _null_odds(by_question)
            threshold = self.fit_threshold(examples, predictions) if threshold is None else threshold
        scores = metrics.official_metrics(
            self.scoring,
            examples,
            # The search for a threshold needs an answer to every question, even where the odds are against one.
            final_answers(by_question, null_threshold=None),
            null_odds=odds,
            null_threshold=threshold,
            skip_unanswered=self.rules.skip_unanswered,
            metric=metrics.METRICS[self.metric],
        )
        return {self.main_metric: scores[self.main_metric]} | scores

    def fit_threshold(self, examples: Sequence[QAExample], predictions: Sequence[QAPrediction]) -> float | None:
        """Return the null odds above which "" yields the best F1; None if every question has an answer.

        The task with this threshold, `dataclasses.replace(task, null_threshold=...)`, withholds answers by it. It lies
        between the odds that it separates, so that rounding moves no question across, whereas the official
        `best_f1_thresh` is one of them. The official one is 0 if it is best never to answer, and odds that are logits
        may be below 0; here it is below all of them.
        """
        if self.scoring != "squad_v2":
            return None
        metrics.require_gold(examples)
        by_question = _by_question(examples, predictions)
        answers, odds = final_answers(by_question, null_threshold=None), _null_odds(by_question)
        gold = metrics.gold_of(examples)
        metric = metrics.METRICS[self.metric]
        found = metrics.best_thresholds(gold, answers, odds, metric=metric)["best_f1_thresh"]
        larger = [value for value in odds.values() if value > found]
        between = (found + min(larger)) / 2 if larger else found + 1.0
        never = min(odds.values()) - 1.0

        def f1_at(threshold: float) -> float:
            scores = metrics.squad_v2_metrics(gold, answers, null_odds=odds, null_threshold=threshold, metric=metric)
            return scores["f1"]

        return never if f1_at(never) > f1_at(between) else between

    def write_predictions(
        self, examples: Sequence[QAExample], predictions: Sequence[QAPrediction], directory: str
    ) -> list[pathlib.Path]:
        """Write predictions.json, nbest.json and, for SQuAD 2.0, null_odds.json in the official formats.

        With a `null_threshold`, predictions.json has "" above it; nbest.json has the withheld answers.

        Raises:
            UserError: if they cannot be written.
        """
        return write_predictions(_by_question(examples, predictions), directory, null_threshold=self.null_threshold)

    def describe(self) -> dict[str, Any]:
        """Return JSON values of everything but the vocabulary and the files: see `qa_task_from_facts`."""
        return {
            "task": self.name,
            "kind": self.kind,
            "scoring": self.scoring,
            "metric": self.metric,
            "windows": {name: value for name, value in vars(self.windows).items() if name != "rules"},
            "decoding": {name: value for name, value in vars(self.decoding).items() if name != "rules"},
            "null_threshold": self.null_threshold,
            "rules": self.rules.name,
        }

    def _candidates(self, outputs: Mapping[str, np.ndarray]) -> Candidates:
        if "start_top_index" in outputs:
            return joint_candidates(
                start_index_K=outputs["start_top_index"],
                start_log_probs_K=outputs["start_top_log_probs"],
                end_index_KK=outputs["end_top_index"],
                end_log_probs_KK=outputs["end_top_log_probs"],
            )
        return independent_candidates(
            start_logits_L=outputs["start_logits"],
            end_logits_L=outputs["end_logits"],
            n_best_size=self.decoding.n_best_size,
        )


def _null_score(outputs: Mapping[str, np.ndarray]) -> float:
    if "answerable_logit" in outputs:
        return float(outputs["answerable_logit"])
    start_logits_L = outputs["start_logits"]
    if "end_logits" in outputs:
        return float(start_logits_L[0] + outputs["end_logits"][0])
    return float(start_logits_L[0] - np.logaddexp.reduce(start_logits_L))


def _by_question(examples: Sequence[QAExample], predictions: Sequence[QAPrediction]) -> dict[str, QAPrediction]:
    return {example.example_id: prediction for example, prediction in zip(examples, predictions, strict=True)}


def _null_odds(predictions: Mapping[str, QAPrediction]) -> dict[str, float]:
    return {name: prediction.null_odds for name, prediction in predictions.items() if prediction.null_odds is not None}


def qa_task_from_facts(facts: Mapping[str, Any], vocabulary: Vocabulary, *, rules: QARules) -> QATask:
    """Rebuild a task from the result of `QATask.describe`, to read raw input; `rules` are those that it names."""
    return QATask(
        name=facts["task"],
        scoring=facts["scoring"],
        metric=facts["metric"],
        vocabulary=vocabulary,
        windows=WindowConfig(**facts["windows"], rules=rules),
        decoding=DecodingConfig(**facts["decoding"], rules=rules),
        null_threshold=facts["null_threshold"],
        sources=NO_SOURCES,
    )


def make_qa_task(
    options: TaskOptions, vocabulary: Vocabulary, *, rules: QARules, recorded: Mapping[str, Any] | None = None
) -> QATask:
    """Return the task of `sources.QA_TASKS` that `options.task` names.

    A user's own, "qa", is scored as SQuAD 2.0 if its training or dev file marks a question as impossible, else as 1.1.

    Args:
        options: which task, where its data is, and how it is cut and decoded.
        vocabulary: tokenises questions and contexts.
        rules: what is learnt from a question, and how its answer is written.
        recorded: the result of `QATask.describe` for the task on which a model was fine-tuned: its threshold and metric
            are taken if the options have none, and its scoring.

    Raises:
        UserError: if settings are invalid, a TFDS dataset is not prepared, a file of a user's own task is malformed, or
            questions have no answer although SQuAD 1.1 requires one.
    """
    sources = qa_sources(options)
    if recorded is None and options.task == "squad_v1" and "dev" in sources.readers and not reads_tfds(options):
        # Data that could not be scored after an epoch is refused before the first.
        check_answered(sources.read(options.task, "dev").examples, f"{options.task}, dev split")
    null_threshold = options.null_threshold
    if null_threshold is None and recorded is not None:
        null_threshold = recorded["null_threshold"]
    set_or_new = options.qa_metric is not None or recorded is None
    metric = metric_of(options, sources) if set_or_new else recorded["metric"]
    return QATask(
        name=options.task,
        scoring=scoring_of(options, sources) if recorded is None else recorded["scoring"],
        metric=metric,
        vocabulary=vocabulary,
        windows=WindowConfig(
            max_sequence_length=options.row_length,
            max_question_length=options.max_question_length,
            doc_stride=options.doc_stride,
            rules=rules,
        ),
        decoding=DecodingConfig(
            n_best_size=options.n_best_size,
            max_answer_length=options.max_answer_length,
            null_odds_against_best_span=False,  # `QATask.predictions` sees whether there is an answerability head.
            rules=rules,
        ),
        null_threshold=null_threshold,
        sources=sources,
    )
