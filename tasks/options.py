"""What Gin sets of a downstream task; each family reads its own part of it."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """A downstream task: which one, where its data is, and how it is read and scored.

    Attributes:
      task: a name of the catalogue (`catalog.NAMES`) or of SeqIO's registry.
      source: "files" (the public layout under `data_dir`, or the paths below) or "tfds" (a prepared dataset).
      data_dir: the folder that holds the task's folder or its files.
      tfds_data_dir: where TFDS's datasets are prepared; None for TFDS's own folder.
      train_file, dev_file, test_file: paths that are taken instead of looking under `data_dir`.
      text_column, text_b_column, label_column: of a user's own table; `label_column` may be None to predict only.
      word_column, tag_column: of a column file, from 0, negative ones from the end; `tag_column` None to predict only.
      tag_scheme: "IOB1", "IOB2" or "IOBES": how the files write entities.
      tag_encoding: which letters the model predicts: "BIOES", "BIO" ...
      dev_fraction: the share of the training examples, chosen by their texts, that stands in for a missing dev file.
      length: the most tokens of a row, special ones counted; None for `length_by_task`'s.
      length_by_task: the length of each task; "default" is that of the others.
      double_unordered: train on pairs whose order does not matter (mrpc, stsb) in both orders.
      skip_bad_rows: leave out and count what cannot be used of a file, rather than stop.
      examples_per_class: package_of: the most training examples of each class.
      gold_counts_predicted: the F1 of a classification as the original's scorer has it.
      span_reader, alignment, token_type_id, observed_labels: see `tagging`: how tags are read as entities
        ("conlleval" or "reference"), words aligned ("complete" or "reference"), the type of all tokens, and whether
        the labels are those that occur in any split, as in the original, rather than all that training's types take.
      max_question_length, doc_stride, word_aligned_answers, answerless_windows_are_answerable, disjoint_windows,
        drop_empty_contexts, final_sep_is_answerable: see `question_answering.WindowConfig`.
      n_best_size, max_answer_length, project_words, no_span_text: see `qa_decoding.DecodingConfig`.
      null_threshold: null odds above it answer ""; None for the best one on the dev split.
      skip_unanswered: leave questions without a prediction out of MRQA's scores, as the original does.
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
    label_column: str | None
    word_column: int
    tag_column: int | None
    tag_scheme: str
    tag_encoding: str
    dev_fraction: float
    length: int | None
    length_by_task: Mapping[str, int]
    double_unordered: bool
    skip_bad_rows: bool
    examples_per_class: int
    gold_counts_predicted: bool
    span_reader: str
    alignment: str
    token_type_id: int
    observed_labels: bool
    max_question_length: int
    doc_stride: int
    word_aligned_answers: bool
    answerless_windows_are_answerable: bool
    disjoint_windows: bool
    drop_empty_contexts: bool
    final_sep_is_answerable: bool
    n_best_size: int
    max_answer_length: int
    project_words: bool
    no_span_text: str
    null_threshold: float | None
    skip_unanswered: bool

    @property
    def row_length(self) -> int:
        """The most tokens of a row of this task."""
        if self.length is not None:
            return self.length
        return self.length_by_task.get(self.task, self.length_by_task["default"])
