"""Find the data of the question-answering tasks: their files, TFDS's names, and whose scoring applies."""

import collections
import dataclasses
import itertools
import logging
import operator
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from electra_jax.errors import UserError
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.protocol import Examples
from electra_jax.tasks.qa.files import read_mrqa, read_squad
from electra_jax.tasks.qa.languages import recognised_metric
from electra_jax.tasks.qa.metrics import METRICS, SQUAD
from electra_jax.tasks.qa.questions import QAExample, mrqa_example, squad_example
from electra_jax.tasks.rows import text_of
from electra_jax.tasks.split_files import Sources, file_sources, reads_tfds, tfds_sources

logger = logging.getLogger(__name__)

# Number of questions whose text shows the language.
RECOGNISED_BY = 200


@dataclasses.dataclass(frozen=True)
class QALayout:
    """The place of a task's data, its format and its scoring.

    Attributes:
        folders: folder names, ours first, then the original's.
        scoring: "squad_v1", "squad_v2" or "mrqa"; None for a user's own in SQuAD's format, for which the files tell it.
        tfds: TFDS's name; None if it has none.
    """

    folders: tuple[str, ...]
    scoring: str | None
    tfds: str | None

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Return the suffixes of the files."""
        lines = (".jsonl", ".jsonl.gz")
        return (
            lines
            if self.scoring == "mrqa"
            else (".json", ".json.gz", *((*lines, ".parquet") if self.scoring is None else ()))
        )

    @property
    def read(self) -> Callable[..., Examples]:
        """Return the function that reads a file."""
        return read_mrqa if self.scoring == "mrqa" else read_squad


QA_TASKS = {
    "squad_v1": QALayout(("squad_v1", "squadv1"), "squad_v1", "squad/v1.1"),
    "squad_v2": QALayout(("squad_v2", "squad"), "squad_v2", "squad/v2.0"),
    "newsqa": QALayout(("newsqa",), "mrqa", "mrqa/news_qa"),
    "naturalqs": QALayout(("naturalqs",), "mrqa", "mrqa/natural_questions"),
    "triviaqa": QALayout(("triviaqa",), "mrqa", "mrqa/trivia_qa"),
    "searchqa": QALayout(("searchqa",), "mrqa", "mrqa/search_qa"),
    "qa": QALayout(("qa",), None, None),
}


def qa_sources(options: TaskOptions) -> Sources:
    """Return the splits of the task that `options.task` names.

    If a user's own data has no dev file, one is held out of training, with contexts that no training question has.

    Raises:
        UserError: if the data should come from TFDS, which has no such dataset.
    """
    layout = QA_TASKS[options.task]
    if reads_tfds(options):
        if layout.tfds is None:
            raise UserError(f"TFDS has no dataset of the task {options.task!r}; set SOURCE = 'files'")
        return tfds_sources(options, dataset=layout.tfds, read=_examples_of_tfds)

    def read(path: pathlib.Path, split: str) -> Examples:
        del split  # All splits have the same format.
        found = layout.read(str(path), skip_bad_rows=options.skip_bad_rows)
        return _marked(found) if layout.scoring == "squad_v2" else found

    return file_sources(
        options,
        folders=layout.folders,
        suffixes=layout.suffixes,
        read=read,
        text_of=operator.attrgetter("context") if layout.scoring is None else None,
    )


def scoring_of(options: TaskOptions, sources: Sources) -> str:
    """Return the scoring; for a user's own data SQuAD 2.0's if its train or dev file marks unanswerable questions."""
    scoring = QA_TASKS[options.task].scoring
    if scoring is not None:
        return scoring
    read = {split: sources.read(options.task, split).examples for split in ("train", "dev") if split in sources.readers}
    if any(example.is_impossible for examples in read.values() for example in examples):
        return "squad_v2"
    for split, examples in read.items():
        check_answered(examples, f"{options.task}, {split} split")
    return "squad_v1"


def _marked(found: Examples) -> Examples:
    """Mark the questions without an answer as impossible if the file, like SQuAD 2.0 on hubs, marks none.

    An answer without text counts as none. A file in which no question has an answer is one to predict.
    """
    answered = [any(text.strip() for text in example.gold_texts) for example in found.examples]
    if any(example.is_impossible for example in found.examples) or not any(answered):
        return found
    examples = [
        example if has_answer else dataclasses.replace(example, answers=(), gold_texts=(), is_impossible=True)
        for example, has_answer in zip(found.examples, answered, strict=True)
    ]
    return dataclasses.replace(found, examples=examples)


def check_answered(examples: Sequence[QAExample], place: str) -> None:
    """Refuse questions without an answer among others that have one, if each must have one.

    A file in which no question has an answer is one to predict.

    Raises:
        UserError: if there are such questions.
    """
    empty = [example.example_id for example in examples if not example.answers]
    if empty and len(empty) < len(examples):
        raise UserError(
            f"{place}: {len(empty)} of {len(examples)} questions have no answer, the first {empty[0]!r}: set TASK = "
            f"'squad_v2' to learn that a context may hold none, or leave these questions out"
        )


def metric_of(options: TaskOptions, sources: Sources) -> str:
    """Return the name of the metric that compares answers: the one that is set, or that of the script of the text.

    The published English tasks use SQuAD's, unless their files hold another language.

    Raises:
        UserError: if there is no metric of that name, or a file is malformed.
    """
    if options.qa_metric is not None:
        if options.qa_metric not in METRICS:
            raise UserError(f"QA_METRIC is {options.qa_metric!r}: it must be one of {', '.join(METRICS)}, or None")
        return options.qa_metric
    labelled = [split for split in ("dev", "train") if split in sources.readers]
    if not labelled or reads_tfds(options) or QA_TASKS[options.task].scoring == "mrqa":
        return SQUAD.name
    examples = itertools.islice(sources.read(options.task, labelled[0]).examples, RECOGNISED_BY)
    found = recognised_metric(text for example in examples for text in (example.question, example.context))
    if found != SQUAD.name:
        logger.warning(
            "answers are compared as %r compares them, by the script of the text: QA_METRIC sets another", found
        )
    return found


def _examples_of_tfds(records: Iterable[Mapping[str, Any]], features: Any, place: str) -> Examples:
    del features
    examples = [_example(record, f"{place}, example {number}") for number, record in enumerate(records)]
    return Examples(examples, collections.Counter())


def _example(record: Mapping[str, Any], place: str) -> QAExample:
    """Return the question of a record of TFDS's squad or mrqa."""
    question = {name: text_of(record[name]) for name in ("id", "qid", "question") if name in record}
    context = text_of(record["context"])
    if "detected_answers" in record:
        detected = record["detected_answers"]
        question["answers"] = [text_of(text) for text in record["answers"]]
        question["detected_answers"] = [
            {"text": text_of(text), "char_spans": [list(span) for span in zip(starts, ends, strict=True)]}
            for text, starts, ends in zip(
                detected["text"],
                _lists(detected["char_spans"]["start"]),
                _lists(detected["char_spans"]["end"]),
                strict=True,
            )
        ]
        return mrqa_example(question, context, place)
    answers = record["answers"]
    question["answers"] = [
        {"text": text_of(text), "answer_start": int(start)}
        for text, start in zip(answers["text"], answers["answer_start"], strict=True)
    ]
    question["is_impossible"] = bool(record.get("is_impossible", False))
    return squad_example(question, context, place)


def _lists(ragged: Any) -> Sequence[list[int]]:
    return ragged.to_list() if hasattr(ragged, "to_list") else ragged.tolist()
