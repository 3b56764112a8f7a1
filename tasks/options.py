"""Bind the options of a downstream task; each family of tasks reads its own part of them."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated

from electra_jax.ranges import AT_LEAST_0, AT_LEAST_1, FINITE, SEED, SHARE, UNDER_1, Checked, Range

# [CLS] x [SEP]: a shorter row holds no text.
SHORTEST_ROW = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskOptions(Checked):
    """Say which downstream task it is, where its data is, and how it is read and scored.

    Attributes:
        task: a name of the catalogue (`catalog.NAMES`) or of SeqIO's registry.
        source: "files" (the public layout under `data_dir`, or the paths below) or "tfds" (a prepared dataset).
        data_dir: the folder that holds the task's folder or its files.
        tfds_data_dir: the folder in which TFDS's datasets are prepared; None for TFDS's own folder.
        train_file, dev_file, test_file: paths that are read instead of the files under `data_dir`.
        text_column, text_b_column, label_column: names of columns of a user's own table. `label_column` may be several
            names, of columns that hold 0 or 1 for one label each, or None to predict only, or to recognise those.
        choice_columns: multiple choice: names of columns that hold one choice each, or of one column of lists.
        template: prompts: a text with {text}, {label} and, for pairs, {text_b}; None for that of the fine-tuned model.
        label_words: prompts: the word that replaces {label} for each label.
        multi_label: whether a text may have several labels, or none; None to recognise it from the training file.
        label_threshold: the probability from which a text gets a label, if it may have several; None for each label's
            best threshold on the dev split.
        word_column, tag_column: numbers of columns of a column file, from 0, or negative ones from the end;
            `tag_column` may be None to predict only.
        tag_scheme: how the files write entities, a name of `tagging.schemes.SCHEMES`; None to recognise it from the
            tags of the first split.
        tag_encoding: the letters that the model predicts: "BIOES", "BIO" ...
        dev_fraction: share of the training examples, chosen by their texts, that replaces a missing dev file.
        folds: number of parts of the training examples, each of which is the dev split once (cross-validation), see
            `folds`; None for none.
        fold: the fold that is the dev split now, from 0; None for all, one after the other.
        fold_seed: seed that decides which examples are in which fold.
        length: largest number of tokens of a row, special ones counted; None for that of `length_by_task`.
        length_by_task: the length for each task; "default" is for the others.
        clip_predictions: whether the values that a regression predicts are clipped to the interval of the training
            split's (GLUE: 0 to 5).
        long_texts: how texts and sentences longer than that are handled, a name of `long_texts.LONG_TEXTS`.
        double_unordered: whether to train on pairs whose order does not matter (mrpc, stsb) in both orders.
        skip_bad_rows: whether to leave out and count unusable rows, instead of stopping.
        examples_per_class: for package_of, the largest number of training examples of a class.
        max_question_length, doc_stride: see `qa.windows.WindowConfig`.
        n_best_size, max_answer_length: see `qa.decoding.DecodingConfig`.
        main_metric: the score that chooses the best seed (and, if the best counts, the checkpoint) and comes first in
            tables, one of the task's own; None for its first.
        qa_metric: the metric that compares answers, a name of `qa.metrics.METRICS`; None for that of the text's script.
        null_threshold: null odds above which the answer is ""; None for the best threshold on the dev split.
        rules: a name of `original.choice.NAMES`: the rules that decide where implementations differ.
    """

    task: str
    source: str
    data_dir: str | None
    tfds_data_dir: str | None
    train_file: str | None
    dev_file: str | None
    test_file: str | None
    text_column: str | None
    text_b_column: str | None
    label_column: str | tuple[str, ...] | None
    choice_columns: str | tuple[str, ...] | None
    template: str | None
    label_words: Mapping[str, str] | None
    multi_label: bool | None
    label_threshold: Annotated[float | None, SHARE]
    word_column: int
    tag_column: int | None
    tag_scheme: str | None
    tag_encoding: str
    dev_fraction: Annotated[float, UNDER_1]
    folds: Annotated[int | None, Range(2)]
    fold: Annotated[int | None, AT_LEAST_0]
    fold_seed: Annotated[int, SEED]
    length: Annotated[int | None, Range(SHORTEST_ROW)]
    length_by_task: Annotated[Mapping[str, int], Range(SHORTEST_ROW)]
    clip_predictions: bool
    long_texts: str
    double_unordered: bool
    skip_bad_rows: bool
    examples_per_class: Annotated[int, AT_LEAST_1]
    max_question_length: Annotated[int, AT_LEAST_1]
    doc_stride: Annotated[int, AT_LEAST_1]
    n_best_size: Annotated[int, AT_LEAST_1]
    max_answer_length: Annotated[int, AT_LEAST_1]
    main_metric: str | None
    qa_metric: str | None
    null_threshold: Annotated[float | None, FINITE]
    rules: str

    @property
    def row_length(self) -> int:
        """Return the largest number of tokens of a row of this task."""
        if self.length is not None:
            return self.length
        return self.length_by_task.get(self.task, self.length_by_task["default"])
