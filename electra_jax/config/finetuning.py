"""What Gin binds for `electra finetune`; nothing has a hidden default."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from electra_jax.errors import UserError
from electra_jax.model.encoder import EncoderConfig
from electra_jax.model.heads import HeadConfig
from electra_jax.tasks.options import TaskOptions
from electra_jax.training.optimizer import OptimizerConfig
from electra_jax.training.sharding import MeshConfig

# Of each kind of task, the heads that Gin can name: the module, whether questions are masked, answerability.
CLASSIFICATION_HEADS = {
    "transformers": "sequence_classification",
    "reference": "sequence_classification_reference",
}
QA_HEADS = {
    "joint": ("joint_question_answering", True, "start"),
    "independent": ("question_answering", True, "start"),
    "transformers": ("question_answering", False, "none"),
}


# A run may be resumed with other values of these: they decide where, how often or how fast, not what comes out.
RESUME_IGNORES = (
    "model_dir",
    "mesh",
    "remat_policy",
    "evaluation_batch_size",
    "log_every",
    "save_every",
    "num_seeds",
)
# What is compared field by field, or is no setting.
NESTED = ("encoder", "task", "heads", "optimizer", "epochs_by_task")


@dataclasses.dataclass(frozen=True)
class HeadOptions:
    """Which head stands on the encoder.

    Attributes:
        classification: of classification and regression: "transformers" (dense, GELU, projection) or "reference" (the
            original's single layer, which transformers has no class for).
        question_answering: "joint" (the end given the start, with a beam, and answerability: the original's, which
            transformers has no class for), "independent" (start and end apart, and answerability) or "transformers"
            (start and end apart, and nothing else: what transformers loads).
        dropout_prob: before the projections of classification and tagging.
        beam_size: of the joint head.
    """

    classification: str
    question_answering: str
    dropout_prob: float
    beam_size: int

    def __post_init__(self) -> None:
        """Refuses names of no head.

        Raises:
            UserError: names those that there are.
        """
        for field, heads in (("classification", CLASSIFICATION_HEADS), ("question_answering", QA_HEADS)):
            if getattr(self, field) not in heads:
                raise UserError(
                    f"HeadOptions.{field} is {getattr(self, field)!r}: it must be one of {', '.join(heads)}"
                )

    def head_for(self, kind: str, *, num_labels: int, final_sep_answers: bool) -> HeadConfig:
        """The head of a kind of task."""
        name, mask_questions, answerable, outputs = "token_classification", False, "none", num_labels
        if kind == "question_answering":
            name, mask_questions, answerable = QA_HEADS[self.question_answering]
            outputs = 2
        elif kind != "tagging":
            name = CLASSIFICATION_HEADS[self.classification]
            outputs = num_labels or 1
        return HeadConfig(
            kind=name,
            num_labels=outputs,
            dropout_prob=self.dropout_prob,
            mask_questions=mask_questions,
            final_sep_answers=final_sep_answers,
            answerable=answerable,
            beam_size=self.beam_size,
        )


@dataclasses.dataclass(frozen=True)
class FinetuningRun:
    """Everything that determines a fine-tuning run.

    Attributes:
        model_dir: the run directory.
        init_from: a model directory whose discriminator's encoder is taken; None for random weights.
        vocab_file: BERT's vocab.txt, needed for random weights; otherwise checked against the model's own.
        lowercase: None to take the casing from the vocabulary's record; otherwise checked against it.
        encoder: makes the sizes of random weights, from a file of gin/models/; with `init_from` it is only compared.
        task: which task, and where its data is.
        heads: what stands on the encoder.
        dropout_prob: of the encoder, wherever it has dropout but for
        attention_dropout_prob: of attention's probabilities.
        dtype: "float32" or "bfloat16", of the products.
        dropout_prng, attention, remat_policy: see `encoder.EncoderConfig`.
        optimizer: makes the update rule of `num_train_steps` and `num_warmup_steps`.
        mesh: of devices.
        batch_size: rows of a global batch.
        evaluation_batch_size: rows of a batch that is not trained on; changes only the speed.
        buckets: lengths that rows are padded to, increasing; those beyond the task's length are not used.
        epochs: over the training split; None for `epochs_by_task`'s.
        epochs_by_task: of each task; "default" are those of the others.
        warmup_fraction: of the steps.
        loss_reduction: see `finetuning.LossConfig`.
        answerable_weight: see `finetuning.LossConfig`.
        log_every, save_every: steps between reports, and between checkpoints to go on from.
        evaluate_every: steps between evaluations on the dev split, of which the best is kept; None for once an epoch.
            There is one more at the end.
        num_seeds: runs, of which every score is reported.
        seed: of the first; the others count on. It draws the head's weights, the order of the rows and dropout.
    """

    model_dir: str
    init_from: str | None
    vocab_file: str | None
    lowercase: bool | None
    encoder: Callable[[], EncoderConfig]
    task: TaskOptions
    heads: HeadOptions
    dropout_prob: float
    attention_dropout_prob: float
    dropout_prng: str
    dtype: str
    attention: str
    remat_policy: str
    optimizer: Callable[..., OptimizerConfig]
    mesh: MeshConfig
    batch_size: int
    evaluation_batch_size: int
    buckets: tuple[int, ...]
    epochs: float | None
    epochs_by_task: Mapping[str, float]
    warmup_fraction: float
    loss_reduction: str
    answerable_weight: float
    log_every: int
    evaluate_every: int | None
    save_every: int
    num_seeds: int
    seed: int

    def __post_init__(self) -> None:
        """Refuses settings that cannot be.

        Raises:
            UserError: names them.
        """
        if self.dtype not in ("float32", "bfloat16"):
            raise UserError(f"DTYPE is {self.dtype!r}: it must be 'float32' or 'bfloat16'")
        if self.loss_reduction not in ("mean", "sum"):
            raise UserError(f"LOSS_REDUCTION is {self.loss_reduction!r}: it must be 'mean' or 'sum'")
        for name in ("batch_size", "evaluation_batch_size", "num_seeds"):
            if getattr(self, name) < 1:
                raise UserError(f"{name.upper()} is {getattr(self, name)}: it must be at least 1")
        if self.num_epochs <= 0:
            raise UserError(f"EPOCHS is {self.num_epochs}: it must be positive")
        if list(self.buckets) != sorted(set(self.buckets)) or not self.buckets:
            raise UserError(f"BUCKETS is {self.buckets}: it must hold increasing lengths")

    @property
    def num_epochs(self) -> float:
        """Over the training split."""
        return (
            self.epochs_by_task.get(self.task.task, self.epochs_by_task["default"])
            if self.epochs is None
            else (self.epochs)
        )

    @property
    def seeds(self) -> range:
        """Of the runs."""
        return range(self.seed, self.seed + self.num_seeds)

    def identity(self, optimizer: OptimizerConfig) -> dict[str, Any]:
        """What makes two runs the same one, which can be gone on with, by names that a user knows; JSON values.

        Args:
            optimizer: the update rule.
        """
        settings = {
            name: value for name, value in vars(self).items() if name not in RESUME_IGNORES and name not in NESTED
        }
        settings["epochs"] = self.num_epochs
        nested = {"optimizer": optimizer, "task": self.task, "heads": self.heads}
        for group, value in nested.items():
            settings |= {f"{group}.{name}": field for name, field in dataclasses.asdict(value).items()}
        return json.loads(json.dumps(settings))
