"""Compute exact match and F1 as the official scripts of SQuAD 1.1, SQuAD 2.0 and MRQA do, to the last digit."""

import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence

from electra_jax.errors import UserError
from electra_jax.tasks.qa.languages import LANGUAGE_METRICS, AnswerMetric, bag_f1
from electra_jax.tasks.qa.questions import QAExample

# Question ids with their acceptable answers; no texts if the right answer is none. A list, because ids may repeat.
Gold = Sequence[tuple[str, Sequence[str]]]

# The default of SQuAD 2.0's script: null odds are probabilities, and none of them withholds an answer.
OFFICIAL_NULL_THRESHOLD = 1.0

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def gold_of(examples: Iterable[QAExample]) -> Gold:
    """Return the gold answers of questions, in their order."""
    return [(example.example_id, example.gold_texts) for example in examples]


def unanswered(gold: Gold, predictions: Mapping[str, str]) -> list[str]:
    """Return the questions that have no prediction. Each metric defines how it counts them."""
    return [example_id for example_id, _ in gold if example_id not in predictions]


def normalize_answer(text: str) -> str:
    """Return a text in lower case, without ASCII punctuation and English articles, with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(prediction: str, gold_text: str) -> bool:
    """Return whether the normalised texts are equal."""
    return normalize_answer(prediction) == normalize_answer(gold_text)


def f1(prediction: str, gold_text: str) -> float:
    """Return the F1 of the normalised words as bags; 0 if none is shared, even if both are empty (not SQuAD 2.0)."""
    return bag_f1(normalize_answer(prediction).split(), normalize_answer(gold_text).split())


SQUAD = AnswerMetric("squad", normalize_answer, f1)

# The metrics by their names in `QA_METRIC`.
METRICS = {"squad": SQUAD} | LANGUAGE_METRICS


def squad_v1_metrics(gold: Gold, predictions: Mapping[str, str], *, metric: AnswerMetric = SQUAD) -> dict[str, float]:
    """Return SQuAD 1.1's `exact_match` and `f1`, per cent, over all questions; those without prediction count 0.

    Raises:
        UserError: if there is no question, or one without gold answer.
    """
    return _mean_scores(gold, [example_id for example_id, _ in gold], predictions, metric)


def mrqa_metrics(
    gold: Gold, predictions: Mapping[str, str], *, skip_unanswered: bool, metric: AnswerMetric = SQUAD
) -> dict[str, float]:
    """Return MRQA's `exact_match` and `f1`, per cent.

    Args:
        gold: if two entries have the same id, the later one counts.
        predictions: by question.
        skip_unanswered: whether to leave out questions without prediction, instead of counting them 0.
        metric: compares answers.

    Raises:
        UserError: if there is no question, or one without gold answer.
    """
    last = list(dict(gold).items())
    counted = [example_id for example_id, _ in last if not skip_unanswered or example_id in predictions]
    return _mean_scores(last, counted, predictions, metric)


def squad_v2_raw_scores(
    gold: Gold, predictions: Mapping[str, str], *, metric: AnswerMetric = SQUAD
) -> tuple[dict[str, float], dict[str, float]]:
    """Return exact match and F1 of each question that has a prediction, before any threshold.

    Gold answers that are empty once normalised do not count; if there is no other, the right answer is "".
    """
    exact, overlap = {}, {}
    for example_id, gold_texts in gold:
        if example_id not in predictions:
            continue
        texts = [text for text in gold_texts if metric.normalize(text)] or [""]
        prediction = predictions[example_id]
        exact[example_id] = max(float(metric.exact_match(prediction, text)) for text in texts)
        overlap[example_id] = max(metric.f1_with_no_answer(prediction, text) for text in texts)
    return exact, overlap


def squad_v2_metrics(
    gold: Gold,
    predictions: Mapping[str, str],
    *,
    null_odds: Mapping[str, float] | None,
    null_threshold: float,
    metric: AnswerMetric = SQUAD,
) -> dict[str, float]:
    """Return the fields of SQuAD 2.0's official script, scores in per cent.

    They are `exact`, `f1`, `total`, the same with the prefixes `HasAns_` and `NoAns_` if there are such questions, and
    with null odds the result of `best_thresholds`. Questions without prediction are left out (the script stops there).

    Args:
        gold: if two entries have the same id, the later one counts.
        predictions: by question; with null odds they should answer every question.
        null_odds: by question; None if predictions already say "" where needed.
        null_threshold: questions with larger null odds are scored as if answered "".
        metric: compares answers.

    Raises:
        UserError: if no question has a prediction, or one with a prediction has no null odds.
    """
    has_answer = {example_id: bool(gold_texts) for example_id, gold_texts in gold}
    exact, overlap = squad_v2_raw_scores(gold, predictions, metric=metric)
    if not exact:
        raise UserError("no question of the data has a prediction; are they of the same data set?")
    odds = null_odds if null_odds is not None else dict.fromkeys(exact, 0.0)
    _require_odds(exact, odds)
    exact_after = _with_threshold(exact, has_answer, odds, null_threshold)
    overlap_after = _with_threshold(overlap, has_answer, odds, null_threshold)
    groups = {
        "": list(exact),
        "HasAns_": [example_id for example_id, known in has_answer.items() if known and example_id in exact],
        "NoAns_": [example_id for example_id, known in has_answer.items() if not known and example_id in exact],
    }
    metrics: dict[str, float] = {}
    for prefix, ids in groups.items():
        if ids:
            metrics[f"{prefix}exact"] = 100.0 * sum(exact_after[example_id] for example_id in ids) / len(ids)
            metrics[f"{prefix}f1"] = 100.0 * sum(overlap_after[example_id] for example_id in ids) / len(ids)
            metrics[f"{prefix}total"] = len(ids)
    if null_odds is not None:
        metrics |= best_thresholds(gold, predictions, null_odds, metric=metric)
    return metrics


def require_gold(examples: Sequence[QAExample]) -> None:
    """Refuse the questions of a test split, which have neither answers nor a mark that there is none.

    Raises:
        UserError: if no question has an answer or is marked as impossible.
    """
    if not any(example.gold_texts or example.is_impossible for example in examples):
        raise UserError(
            f"none of the {len(examples)} questions has a gold answer: a test split is predicted, but scored by its "
            f"owner alone; score the dev split"
        )


def official_metrics(
    scoring: str,
    examples: Sequence[QAExample],
    predictions: Mapping[str, str],
    *,
    null_odds: Mapping[str, float] | None,
    null_threshold: float | None,
    skip_unanswered: bool,
    metric: AnswerMetric,
) -> dict[str, float]:
    """Return the scores of "squad_v1", "squad_v2" or "mrqa", in the fields of their script.

    Args:
        scoring: the name of the script.
        examples: the questions.
        predictions: by question.
        null_odds, null_threshold: as in `squad_v2_metrics`; only "squad_v2" reads them.
        skip_unanswered: as in `mrqa_metrics`.
        metric: compares answers.

    Raises:
        UserError: if no question has a gold answer, or none has a prediction.
    """
    require_gold(examples)
    gold = gold_of(examples)
    if len(unanswered(gold, predictions)) == len(gold):
        raise UserError("no question of the data has a prediction; are they of the same data set?")
    if scoring == "squad_v1":
        return squad_v1_metrics(gold, predictions, metric=metric)
    if scoring == "mrqa":
        return mrqa_metrics(gold, predictions, skip_unanswered=skip_unanswered, metric=metric)
    threshold = OFFICIAL_NULL_THRESHOLD if null_threshold is None else null_threshold
    return squad_v2_metrics(gold, predictions, null_odds=null_odds, null_threshold=threshold, metric=metric)


def best_thresholds(
    gold: Gold, predictions: Mapping[str, str], null_odds: Mapping[str, float], *, metric: AnswerMetric = SQUAD
) -> dict[str, float]:
    """Return `best_exact` and `best_f1`, per cent, and the null odds (`..._thresh`) above which "" achieves them.

    As in the official script, the threshold is 0 if it is best never to answer, and unanswered questions count among
    those for which "" is right.

    Raises:
        UserError: if no question has a prediction, or one with a prediction has no null odds.
    """
    has_answer = {example_id: bool(gold_texts) for example_id, gold_texts in gold}
    exact, overlap = squad_v2_raw_scores(gold, predictions, metric=metric)
    if not exact:
        raise UserError("no question of the data has a prediction; are they of the same data set?")
    _require_odds(exact, null_odds)
    metrics = {}
    for name, scores in (("best_exact", exact), ("best_f1", overlap)):
        score, threshold = _best_threshold(scores, predictions, null_odds, has_answer)
        metrics[name] = score
        metrics[f"{name}_thresh"] = threshold
    return metrics


def _best_threshold(
    scores: Mapping[str, float],
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float],
    has_answer: Mapping[str, bool],
) -> tuple[float, float]:
    score = best_score = float(sum(not known for known in has_answer.values()))
    threshold = 0.0
    for example_id in sorted(null_odds, key=null_odds.__getitem__):
        if example_id not in scores:
            continue
        if has_answer[example_id]:
            score += scores[example_id]
        elif predictions[example_id]:
            score -= 1
        if score > best_score:
            best_score = score
            threshold = null_odds[example_id]
    return 100.0 * best_score / len(scores), threshold


def _with_threshold(
    scores: Mapping[str, float], has_answer: Mapping[str, bool], null_odds: Mapping[str, float], null_threshold: float
) -> dict[str, float]:
    return {
        example_id: float(not has_answer[example_id]) if null_odds[example_id] > null_threshold else score
        for example_id, score in scores.items()
    }


def _require_odds(scores: Mapping[str, float], null_odds: Mapping[str, float]) -> None:
    missing = [example_id for example_id in scores if example_id not in null_odds]
    if missing:
        raise UserError(f"{len(missing)} questions have a prediction but no null odds, such as {missing[0]!r}")


def _mean_scores(
    gold: Gold, counted: Sequence[str], predictions: Mapping[str, str], metric: AnswerMetric
) -> dict[str, float]:
    if not counted:
        raise UserError("there is no question to score; are predictions and data of the same data set?")
    without = [example_id for example_id, gold_texts in gold if not gold_texts]
    if without:
        raise UserError(
            f"{len(without)} questions have no gold answer, such as {without[0]!r}; score as SQuAD 2.0, or give "
            f"data with answers"
        )
    answered = [(predictions[example_id], texts) for example_id, texts in gold if example_id in predictions]

    def total(score: Callable[[str, str], float]) -> float:
        return sum(max(score(prediction, text) for text in texts) for prediction, texts in answered)

    return {
        "exact_match": 100.0 * total(metric.exact_match) / len(counted),
        "f1": 100.0 * total(metric.f1) / len(counted),
    }
