"""Decode a model's scores over the windows of a question into its answer, its n-best list and its null odds."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.errors import UserError
from electra_jax.files import replace_file
from electra_jax.tasks.probabilities import softmax
from electra_jax.tasks.qa.questions import QAExample
from electra_jax.tasks.qa.windows import QARules, Window, span_characters
from electra_jax.tasks.vocabulary import Vocabulary

# The null score of a question without windows: larger than any.
_NO_WINDOW_NULL_SCORE = np.float32(1_000_000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How spans become answers.

    Attributes:
        n_best_size: the most answers of a question.
        max_answer_length: the most word pieces of an answer.
        null_odds_against_best_span: whether null odds are the null score minus the best span's, as they must be if both
            come from the span head; False if an answerability head gives the null score.
        rules: how the text of a span is written, and the answer if no span is left.
    """

    n_best_size: int
    max_answer_length: int
    null_odds_against_best_span: bool
    rules: QARules


@dataclasses.dataclass(frozen=True)
class Candidates:
    """S spans of one window, in any order: first and last positions (integers) and their scores (float32)."""

    start_S: np.ndarray
    end_S: np.ndarray
    start_score_S: np.ndarray
    end_score_S: np.ndarray


@dataclasses.dataclass(frozen=True)
class ScoredText:
    """An answer in the n-best list.

    Attributes:
        text, probability, start_logit, end_logit: the official fields.
        start, end: its characters in the context, [start, end); None if it is not a span of it.
    """

    text: str
    probability: float
    start_logit: float
    end_logit: float
    start: int | None = None
    end: int | None = None

    def official(self) -> dict[str, Any]:
        """Return the fields of the official n-best list."""
        return {name: value for name, value in vars(self).items() if name not in ("start", "end")}


@dataclasses.dataclass(frozen=True)
class QAPrediction:
    """The answer to a question, and its confidence.

    Attributes:
        nbest: distinct answers, best first; at least one.
        null_odds: larger if it is more likely that there is no answer; None if every question has one.
        null_threshold: null odds above it mean that there is no answer; None if no threshold has been found yet.
    """

    nbest: tuple[ScoredText, ...]
    null_odds: float | None
    null_threshold: float | None = None

    @property
    def text(self) -> str:
        """Return the best answer, even if there is likely to be none."""
        return self.nbest[0].text

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as JSON values.

        They are the `answer` ("" if there is likely to be none), its characters in the context [`start`, `end`), null
        if there is none, the `probability` of the best span among those of `nbest`, and, if questions may have no
        answer, `null_odds` with their `null_threshold`.
        """
        (answer,) = final_answers({"": self}, null_threshold=self.null_threshold).values()
        start, end = (self.nbest[0].start, self.nbest[0].end) if answer else (None, None)
        odds = {} if self.null_odds is None else {"null_odds": self.null_odds, "null_threshold": self.null_threshold}
        best = {"answer": answer, "start": start, "end": end, "probability": self.nbest[0].probability}
        return best | odds | {"nbest": [dataclasses.asdict(entry) for entry in self.nbest]}


def joint_candidates(
    *, start_index_K: np.ndarray, start_log_probs_K: np.ndarray, end_index_KK: np.ndarray, end_log_probs_KK: np.ndarray
) -> Candidates:
    """Return the spans of the joint head: K starts, and for each of them K ends."""
    num_ends = end_index_KK.shape[1]
    return Candidates(
        start_S=np.repeat(start_index_K, num_ends),
        end_S=end_index_KK.reshape(-1),
        start_score_S=np.repeat(start_log_probs_K, num_ends),
        end_score_S=end_log_probs_KK.reshape(-1),
    )


def independent_candidates(*, start_logits_L: np.ndarray, end_logits_L: np.ndarray, n_best_size: int) -> Candidates:
    """Return the spans of the independent head: each of the n best starts with each of the n best ends."""
    starts = best_indices(start_logits_L, n_best_size)
    ends = best_indices(end_logits_L, n_best_size)
    return Candidates(
        start_S=np.repeat(starts, len(ends)),
        end_S=np.tile(ends, len(starts)),
        start_score_S=np.repeat(start_logits_L[starts], len(ends)),
        end_score_S=np.tile(end_logits_L[ends], len(starts)),
    )


def best_indices(scores_N: np.ndarray, n_best_size: int) -> np.ndarray:
    """Return the indices of the largest scores, largest first; of equal scores the first index comes first."""
    return np.argsort(-np.asarray(scores_N), kind="stable")[:n_best_size]


def decode(
    example: QAExample,
    windows: Sequence[Window],
    candidates: Sequence[Candidates],
    null_scores: Sequence[float] | None,
    vocabulary: Vocabulary,
    config: DecodingConfig,
) -> QAPrediction:
    """Return the answer to a question from the spans of all its windows.

    A span must lie in the context, start in the window with the most context around its start, and be short enough.

    Args:
        example: the question.
        windows: its windows, as `prediction_windows` returns them.
        candidates: the spans of each window.
        null_scores: a score for each window, larger if it is more likely that there is no answer: the answerability
            logit; without that head the start plus end logit of [CLS], or with the joint head the log-probability of
            starting there (the original takes the bare logit). The smallest one counts, of the window most certain to
            hold an answer. None if every question has an answer.
        vocabulary: the vocabulary with which the windows were made.
        config: how spans become answers.

    Raises:
        UserError: if a score is NaN.
    """
    nbest = _best_texts(example, windows, candidates, vocabulary, config)
    if null_scores is None:
        return QAPrediction(nbest, None)
    null_odds = min(map(np.float32, null_scores), default=_NO_WINDOW_NULL_SCORE)
    if np.isnan(null_scores).any():
        raise UserError(_not_a_number(example))
    if config.null_odds_against_best_span:
        null_odds = null_odds - np.float32(nbest[0].start_logit) - np.float32(nbest[0].end_logit)
    return QAPrediction(nbest, float(null_odds))


def final_answers(predictions: Mapping[str, QAPrediction], *, null_threshold: float | None) -> dict[str, str]:
    """Return the answer to each question: "" where the null odds exceed the threshold.

    Args:
        predictions: by question.
        null_threshold: None to answer every question, as the search for a threshold, `best_thresholds`, requires.
    """
    answers = {}
    for example_id, prediction in predictions.items():
        is_null = null_threshold is not None and prediction.null_odds is not None
        is_null = is_null and prediction.null_odds > null_threshold
        answers[example_id] = "" if is_null else prediction.text
    return answers


def write_predictions(
    predictions: Mapping[str, QAPrediction], directory: str, *, null_threshold: float | None
) -> list[pathlib.Path]:
    """Write predictions.json, nbest.json and, if there are null odds, null_odds.json in the official formats.

    Returns:
        The files.

    Raises:
        UserError: if they cannot be written.
    """
    content: dict[str, dict[str, object]] = {
        "predictions.json": dict(final_answers(predictions, null_threshold=null_threshold)),
        "nbest.json": {
            example_id: [entry.official() for entry in prediction.nbest]
            for example_id, prediction in predictions.items()
        },
    }
    odds = {name: prediction.null_odds for name, prediction in predictions.items() if prediction.null_odds is not None}
    if odds:
        content["null_odds.json"] = odds
    folder = pathlib.Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in content.items():
            replace_file(folder / name, json.dumps(values, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{directory}: the predictions cannot be written ({error.strerror})") from error
    return [folder / name for name in content]


def _best_texts(
    example: QAExample,
    windows: Sequence[Window],
    candidates: Sequence[Candidates],
    vocabulary: Vocabulary,
    config: DecodingConfig,
) -> tuple[ScoredText, ...]:
    kept = [_allowed(window, spans, config) for window, spans in zip(windows, candidates, strict=True)]
    if not kept:
        return (ScoredText(config.rules.no_span_text, 1.0, 0.0, 0.0),)
    window_S = np.repeat(np.arange(len(kept)), [len(spans.start_S) for spans in kept])
    start_S, end_S, start_score_S, end_score_S = (
        np.concatenate([getattr(spans, field.name) for spans in kept]) for field in dataclasses.fields(Candidates)
    )
    score_S = start_score_S + end_score_S
    if np.isnan(score_S).any():
        raise UserError(_not_a_number(example))
    best: dict[str, int] = {}
    characters: dict[str, tuple[int, int]] = {}
    for number in best_indices(score_S, len(score_S)).tolist():
        window, start, end = windows[window_S[number]], int(start_S[number]), int(end_S[number])
        text = config.rules.span_text(example.context, window, start, end, vocabulary)
        if best.setdefault(text, number) == number:
            characters[text] = span_characters(example.context, window, start, end)
        if len(best) == config.n_best_size:
            break
    if not best:
        return (ScoredText(config.rules.no_span_text, 1.0, 0.0, 0.0),)
    numbers = list(best.values())
    probabilities = softmax(score_S[numbers])
    scores = zip(best, probabilities, start_score_S[numbers], end_score_S[numbers], strict=True)
    return tuple(ScoredText(text, *map(float, values), *characters[text]) for text, *values in scores)


def _allowed(window: Window, spans: Candidates, config: DecodingConfig) -> Candidates:
    num_pieces = len(window.offsets_C2)
    start_S, end_S = spans.start_S - window.context_start, spans.end_S - window.context_start
    allowed_S = (start_S >= 0) & (start_S < num_pieces) & (end_S >= start_S) & (end_S < num_pieces)
    allowed_S &= end_S - start_S < config.max_answer_length
    # Positions outside the context have no entry in `is_max_context_C`.
    allowed_S[allowed_S] = window.is_max_context_C[start_S[allowed_S]]
    return Candidates(*(getattr(spans, field.name)[allowed_S] for field in dataclasses.fields(Candidates)))


def _not_a_number(example: QAExample) -> str:
    return f"question {example.example_id!r}: the model's scores are not numbers (NaN): look at its weights"
