"""Score predictions from a file of any origin: no model and no vocabulary is needed."""

from electra_jax.errors import UserError
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.original import choice
from electra_jax.tasks.qa import metrics as qa_metrics
from electra_jax.tasks.qa.files import read_null_odds, read_predictions
from electra_jax.tasks.qa.sources import QA_TASKS, metric_of, qa_sources, scoring_of
from electra_jax.tasks.tagging.conlleval import EntityEvaluation, evaluate_tags, read_tagged_output
from electra_jax.tasks.tagging.task import TAGGING_TASKS
from electra_jax.tasks.text.glue import GLUE, read_submission
from electra_jax.tasks.text.glue_metrics import task_scores
from electra_jax.tasks.text.sources import glue_sources


def score_predictions(
    options: TaskOptions, split: str, predictions_file: str, *, null_odds_file: str | None
) -> dict[str, float]:
    """Return the metrics of a file of predictions, in per cent, as the official scripts compute them.

    Args:
        options: the task, and where its gold answers are.
        split: the split that was predicted. A tagged file holds its gold tags, so that no split is read.
        predictions_file: for question answering, JSON with an answer for each question; for tagging, lines whose last
            two columns are the gold and the predicted tag (`tagged_file` also gives the scores by type); for GLUE, a
            submission file.
        null_odds_file: for SQuAD 2.0, JSON with a number for each question. Answers are withheld if it is above
            `options.null_threshold`, or else above the official script's threshold; the best threshold is found too.

    Raises:
        UserError: if a file is malformed, the predictions belong to another split, the split has no gold labels, or
            predictions of the task have no such file.
    """
    if options.task in QA_TASKS:
        return _score_answers(options, split, predictions_file, null_odds_file)
    if null_odds_file is not None:
        raise UserError(f"{null_odds_file}: null odds belong to question answering, not to {options.task!r}.")
    if options.task in TAGGING_TASKS:
        return tagged_file(predictions_file, rules=options.rules).metrics()
    if options.task in GLUE:
        return _score_submission(options, split, predictions_file)
    known = ", ".join((*QA_TASKS, *TAGGING_TASKS, *GLUE))
    raise UserError(f"The task {options.task!r} has no file format of predictions to score; these have: {known}.")


def tagged_file(file: str, *, rules: str) -> EntityEvaluation:
    """Return the scores of a tagged file; their `report()` is conlleval's output for it.

    Args:
        file: lines whose last two columns are the gold and the predicted tag.
        rules: the name in `original.choice.NAMES` of the rules that read tags as entities.

    Raises:
        UserError: if the file is missing, empty or malformed.
    """
    gold, predicted = read_tagged_output(file)
    return evaluate_tags(gold, predicted, spans_of=choice.tagging_rules(rules).spans_of)


def _score_answers(
    options: TaskOptions, split: str, predictions_file: str, null_odds_file: str | None
) -> dict[str, float]:
    sources = qa_sources(options)
    return qa_metrics.official_metrics(
        scoring_of(options, sources),
        sources.read(options.task, split).examples,
        read_predictions(predictions_file),
        null_odds=None if null_odds_file is None else read_null_odds(null_odds_file),
        # Without odds no answer is withheld.
        null_threshold=None if null_odds_file is None else options.null_threshold,
        skip_unanswered=choice.qa_rules(options.rules).skip_unanswered,
        metric=qa_metrics.METRICS[metric_of(options, sources)],
    )


def _score_submission(options: TaskOptions, split: str, predictions_file: str) -> dict[str, float]:
    task = GLUE[options.task]
    gold = glue_sources(task, options).read(task.name, split)
    found = read_submission(task, predictions_file)
    labels = {example.index: example.label for example in gold.examples}
    if None in labels.values():
        raise UserError(f"the {split} split of {task.name} has no public labels to score {predictions_file} against.")
    num_rows = len(labels) + gold.skipped.total()
    if len(found) != num_rows:
        raise UserError(
            f"{predictions_file} predicts {len(found)} rows, but the {split} split of {task.name} has {num_rows}; is "
            f"it of another split?"
        )
    missing = [index for index in labels if index not in found]
    if missing:
        raise UserError(
            f"{predictions_file} has no prediction of row {missing[0]} of the {split} split of {task.name}."
        )
    return task_scores(task.name, list(labels.values()), [found[index] for index in labels])
