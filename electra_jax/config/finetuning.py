"""Configure `electra finetune`: the dataclasses that Gin binds, none with a hidden default."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from electra_jax import ranges
from electra_jax.config.selection import SELECTIONS
from electra_jax.errors import UserError
from electra_jax.model.config import EncoderConfig
from electra_jax.model.heads import HeadConfig
from electra_jax.model.pooling import POOLINGS
from electra_jax.ranges import AT_LEAST_0, AT_LEAST_1, NAMED, POSITIVE, RUNS, SEED, SHARE, UNDER_1
from electra_jax.tasks.options import TaskOptions
from electra_jax.training.optimizer import OptimizerConfig
from electra_jax.training.sharding import MeshConfig

# The heads that Gin can name, by kind of task: the head, and for question answering whether the question is masked
# and what answerability is predicted from.
CLASSIFICATION_HEADS = {
    "transformers": "sequence_classification",
    "reference": "sequence_classification_reference",
}
QA_HEADS = {
    "joint": ("joint_question_answering", True, "start"),
    "independent": ("question_answering", True, "start"),
    "transformers": ("question_answering", False, "none"),
}
# The heads that "transformers" names on a pre-LayerNorm encoder, for tagging too: the heads of ModernBERT.
MODERNBERT_HEADS = {
    "sequence_classification": "modernbert_sequence_classification",
    "token_classification": "modernbert_token_classification",
    "question_answering": "modernbert_question_answering",
}

# A run may be resumed with other values of these: they decide where, how often or how fast, not the result.
RESUME_IGNORES = (
    "model_dir",
    "mesh",
    "remat_policy",
    "scan_unroll",
    "evaluation_batch_size",
    "log_every",
    "save_every",
    "num_seeds",
    "allow_unknown",
    "keep_state",
)
# These are compared field by field, or are not settings.
NESTED = ("encoder", "task", "heads", "optimizer", "epochs_by_task")


@dataclasses.dataclass(frozen=True)
class HeadOptions:
    """The heads on the encoder, by kind of task.

    Attributes:
        classification: for classification and regression, "transformers" (dense, GELU, projection; on a pre-LayerNorm
            encoder ModernBERT's head, which adds a LayerNorm) or "reference" (the original's single layer, for which
            transformers has no class).
        classifier_pooling: the input of the classification head: "cls", or, for ModernBERT's, "mean", the mean of the
            row's tokens.
        question_answering: "joint" (the end given the start, with a beam, and answerability: the original's, for which
            transformers has no class), "independent" (start and end separately, and answerability) or "transformers"
            (start and end separately, and nothing else, which transformers can load).
        dropout_prob: dropout before the projections of classification and tagging.
        beam_size: beam of the joint head.
        layer: for similarity and retrieval, the layer whose states become vectors, counted from 1, or from the last as
            -1; later layers are left out. None to choose it on the dev split.
        pooling: for the same tasks, "mean" or "cls"; None to choose it.
    """

    classification: str
    classifier_pooling: str
    question_answering: str
    dropout_prob: Annotated[float, UNDER_1]
    beam_size: Annotated[int, AT_LEAST_1]
    layer: int | None
    pooling: str | None

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            UserError: if there is no head of that name.
        """
        ranges.check(self)
        names = {
            "classification": CLASSIFICATION_HEADS,
            "classifier_pooling": POOLINGS,
            "question_answering": QA_HEADS,
            "pooling": (*POOLINGS, None),
        }
        for field, heads in names.items():
            if getattr(self, field) not in heads:
                raise UserError(
                    f"HeadOptions.{field} is {getattr(self, field)!r}: it must be one of {', '.join(map(str, heads))}"
                )

    def head_for(self, kind: str, *, encoder: EncoderConfig, num_labels: int, final_sep_answers: bool) -> HeadConfig:
        """Return the head for a kind of task on an encoder.

        Raises:
            UserError: if the mean is asked for but the head reads [CLS].
        """
        name, mask_questions, answerable, outputs = "token_classification", False, "none", num_labels
        if kind == "question_answering":
            name, mask_questions, answerable = QA_HEADS[self.question_answering]
            outputs = 2
        elif kind != "tagging":
            name = CLASSIFICATION_HEADS[self.classification]
            outputs = num_labels or 1
        if encoder.norm_placement == "pre" and not mask_questions:
            name = MODERNBERT_HEADS.get(name, name)
        if self.classifier_pooling == "mean" and name in CLASSIFICATION_HEADS.values():
            raise UserError(
                f"HeadOptions.classifier_pooling is 'mean', and the head {name} reads [CLS]: set it to 'cls', or take "
                "ModernBERT's head, with HeadOptions.classification 'transformers' and an encoder with pre-LayerNorm"
            )
        return HeadConfig(
            kind=name,
            num_labels=outputs,
            dropout_prob=self.dropout_prob,
            mask_questions=mask_questions,
            final_sep_answers=final_sep_answers,
            answerable=answerable,
            beam_size=self.beam_size,
            classifier_pooling=self.classifier_pooling,
        )


@dataclasses.dataclass(frozen=True)
class FinetuningRun:
    """Everything that determines a fine-tuning run.

    Attributes:
        model_dir: the run directory.
        init_from: the model directory whose discriminator's encoder is the initial one; None for random weights.
        vocab_file: BERT's vocab.txt or any tokenizer.json; needed for random weights, otherwise checked against the
            model's own.
        lowercase: None to take the casing from the record of a vocab.txt; otherwise checked against it.
        encoder: returns the sizes of random weights, from a file of gin/models/; with `init_from` only checked.
        task: the task, and where its data is.
        heads: the head on the encoder.
        dropout_prob: dropout of the encoder, except that of attention probabilities.
        attention_dropout_prob: dropout of the attention probabilities.
        dtype: "float32" or "bfloat16", the dtype of matrix products.
        dropout_prng, attention, remat_policy: see `encoder.EncoderConfig`.
        scan_unroll: layers per iteration of the loop over layers, at most all of them. None for the value in the Gin
            file of random weights; a checkpoint's layers are then unrolled if there are at most 12 and `remat_policy`
            is "none", because rematerialisation needs the loop.
        optimizer: returns the update rule for `num_train_steps` and `num_warmup_steps`.
        mesh: the device mesh.
        batch_size: rows of a global batch.
        evaluation_batch_size: rows of a batch in evaluation; changes only the speed.
        buckets: increasing lengths that rows are padded to; those beyond the task's length are not used.
        pool_batches: number of batches whose rows are sorted by length together, to reduce padding: see
            `buckets.epoch_order`.
        epochs: epochs over the training split; None for those of `epochs_by_task`.
        epochs_by_task: epochs by task name; "default" for all others.
        warmup_fraction: share of the steps in which the learning rate warms up.
        loss_reduction: "mean", in which a batch's sum is divided by the rows (tagging: the labelled words) of the
            average batch, so that each weighs the same in any batch; or "sum", as in the original.
        answerable_weight, temperature: see `finetuning.LossConfig`.
        class_weights: for classification, "balanced", or weights by class name, where classes not named weigh 1; None
            for 1 each: see `class_weights.weights_of_classes`.
        frozen_layers: how many of the encoder's layers, from the lowest up, keep their weights together with the
            embeddings; 0 for the embeddings alone; None to train everything.
        accumulation_steps: micro-batches that a batch is cut into and processed one after the other, to save memory.
        patience: evaluations in a row without a better score after which a seed stops; None to train to the end.
        keep_state: whether to keep the last state of a finished seed, from which it continues if `epochs` is raised.
        log_every, save_every: steps between reports, and between checkpoints to resume from.
        evaluate_every: steps between evaluations on the dev split; None for once an epoch. A final one follows at the
            end.
        selection: which checkpoint counts, a name of `selection.SELECTIONS`: "last", or "best". The best one is chosen
            on the dev split if a labelled test split is reported, otherwise on one half of it while the other half is
            reported.
        allow_unknown: continue even if more than a fifth of a split's tokens are [UNK].
        num_seeds: number of runs; the score of each is reported.
        seed: seed of the first run; the others count up. It determines the head's weights, the order of the rows, and
            dropout.
    """

    model_dir: Annotated[str, NAMED]
    init_from: str | None
    vocab_file: str | None
    lowercase: bool | None
    encoder: Callable[[], EncoderConfig]
    task: TaskOptions
    heads: HeadOptions
    dropout_prob: Annotated[float, UNDER_1]
    attention_dropout_prob: Annotated[float, UNDER_1]
    dropout_prng: str
    dtype: str
    attention: str
    remat_policy: str
    scan_unroll: Annotated[int | None, AT_LEAST_1]
    optimizer: Callable[..., OptimizerConfig]
    mesh: MeshConfig
    batch_size: Annotated[int, AT_LEAST_1]
    evaluation_batch_size: Annotated[int, AT_LEAST_1]
    buckets: Annotated[tuple[int, ...], AT_LEAST_1]
    pool_batches: Annotated[int, AT_LEAST_1]
    epochs: Annotated[float | None, POSITIVE]
    epochs_by_task: Annotated[Mapping[str, float], POSITIVE]
    warmup_fraction: Annotated[float, SHARE]
    loss_reduction: str
    answerable_weight: Annotated[float, AT_LEAST_0]
    temperature: Annotated[float, POSITIVE]
    class_weights: str | Mapping[str, float] | None
    frozen_layers: Annotated[int | None, AT_LEAST_0]
    accumulation_steps: Annotated[int, AT_LEAST_1]
    patience: Annotated[int | None, AT_LEAST_1]
    keep_state: bool
    log_every: Annotated[int, AT_LEAST_1]
    evaluate_every: Annotated[int | None, AT_LEAST_1]
    save_every: Annotated[int, AT_LEAST_1]
    selection: str
    allow_unknown: bool
    num_seeds: Annotated[int, RUNS]
    seed: Annotated[int, SEED]

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: if a setting is out of range.
        """
        ranges.check(self)
        if self.dtype not in ("float32", "bfloat16"):
            raise UserError(f"DTYPE is {self.dtype!r}: it must be 'float32' or 'bfloat16'")
        if self.loss_reduction not in ("mean", "sum"):
            raise UserError(f"LOSS_REDUCTION is {self.loss_reduction!r}: it must be 'mean' or 'sum'")
        weights = self.class_weights
        numbers = isinstance(weights, Mapping) and all(POSITIVE.holds(one) for one in weights.values())
        if weights not in (None, "balanced") and not numbers:
            raise UserError(
                f"CLASS_WEIGHTS is {weights!r}: it must be 'balanced', or positive weights by the names of classes, as "
                "in {'rare': 5.0}"
            )
        if self.selection not in SELECTIONS:
            raise UserError(f"SELECTION is {self.selection!r}: it must be one of {', '.join(map(repr, SELECTIONS))}")
        if list(self.buckets) != sorted(set(self.buckets)) or not self.buckets:
            raise UserError(f"BUCKETS is {self.buckets}: it must hold increasing lengths")

    @property
    def num_epochs(self) -> float:
        """Epochs over the training split."""
        if self.epochs is not None:
            return self.epochs
        return self.epochs_by_task.get(self.task.task, self.epochs_by_task["default"])

    @property
    def seeds(self) -> range:
        """The seeds of the runs."""
        return range(self.seed, self.seed + self.num_seeds)

    def identity(self, optimizer: OptimizerConfig) -> dict[str, Any]:
        """Return the settings that a run must share with the run that it resumes, by name, as JSON values.

        Args:
            optimizer: the update rule of the run.
        """
        settings = {
            name: value for name, value in vars(self).items() if name not in RESUME_IGNORES and name not in NESTED
        }
        settings["epochs"] = self.num_epochs
        nested = {"optimizer": optimizer, "task": self.task, "heads": self.heads}
        for group, value in nested.items():
            settings |= {f"{group}.{name}": field for name, field in dataclasses.asdict(value).items()}
        return json.loads(json.dumps(settings))
