"""Train this project's models, losses, tasks and optimizers with T5X: the only file that imports T5X.

T5X is on no package index, and nothing else in this project imports this file. Gin binds the classes and functions here
into T5X's own scripts (gin/t5x/; docs/outgrowing.md shows how to run them):

    python -m t5x.train --gin_file=gin/t5x/pretrain.gin ...

T5X needs only methods of given names from a model. It has its own key for each step and its own checkpoints; the loss
for a batch and a key is `steps.training_loss`, as in `electra pretrain`. T5X's modules are imported where they are
called, so all of this file except `optimizer_def`, `partitioner` and `summarize_config` runs without T5X.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import clu.metrics
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from flax.linen.partitioning import AxisMetadata
from jax.sharding import Mesh

from electra_jax.checkpoints import model_dir as loading
from electra_jax.checkpoints import orbax_store, plain_towers
from electra_jax.checkpoints.model_record import MODEL_KINDS, Description, write_model_record
from electra_jax.config import data
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.finetuning import start
from electra_jax.finetuning import steps as finetuning
from electra_jax.model.finetuned import FinetunedModel, head_outputs
from electra_jax.model.types import PyTree
from electra_jax.pretraining import evaluation, metrics, steps
from electra_jax.pretraining.phases import PUBLISHED
from electra_jax.tasks import seqio_export
from electra_jax.tasks.catalog import make_task
from electra_jax.tasks.pretraining import tasks as pretraining_tasks
from electra_jax.tasks.protocol import VECTOR_KINDS
from electra_jax.tasks.tokenizer_file import write_tokenizer
from electra_jax.tasks.vocabulary import Vocabulary
from electra_jax.training import optimizer
from electra_jax.training.optimizer import OptimizerConfig
from electra_jax.training.state import Batch

Metrics = dict[str, clu.metrics.Metric]


def with_axes(boxed: PyTree) -> dict[str, PyTree]:
    """Return the variables that T5X expects of `init`: `params` without boxes, and their logical axes `params_axes`.

    A leaf of `params_axes` has the name of its parameter and `_axes` after it.
    """
    leaves = traverse_util.flatten_dict(boxed, is_leaf=lambda _, value: isinstance(value, nn.Partitioned))
    axes = {
        (*path[:-1], f"{path[-1]}_axes"): AxisMetadata(tuple(leaf.names))
        for path, leaf in leaves.items()
        if isinstance(leaf, nn.Partitioned)
    }
    # Unboxing adds sharding constraints if it finds axis rules, but T5X shards by its own.
    with nn.logical_axis_rules(()):
        return {"params": nn.unbox(boxed), "params_axes": traverse_util.unflatten_dict(axes)}


@flax.struct.dataclass
class Reported(clu.metrics.Metric):
    """One of the values that `finish` computes from sums, which T5X adds up over its steps."""

    sums: dict[str, jax.Array]
    name: str = flax.struct.field(pytree_node=False)
    finish: Callable[[Mapping[str, np.ndarray]], Mapping[str, float]] = flax.struct.field(pytree_node=False)

    def merge(self, other: "Reported") -> "Reported":
        """Return the metric of both sums together."""
        return self.replace(sums=jax.tree.map(jnp.add, self.sums, other.sums))

    def compute(self) -> float:
        """Return the value."""
        return self.finish(self.sums)[self.name]


def reported(
    sums: Mapping[str, jax.Array], finish: Callable[[Mapping[str, np.ndarray]], Mapping[str, float]]
) -> Metrics:
    """Return a T5X metric for each value that `finish` computes from these sums."""
    names = finish({name: np.zeros(value.shape) for name, value in sums.items()})
    return {name: Reported(dict(sums), name, finish) for name in names}


def optimizer_def(config: OptimizerConfig) -> Any:
    """Return the optimizer in T5X's wrapper.

    Raises:
        UserError: if groups of parameters have update rules of their own.
    """
    if config.rule == "muon" or (config.generator_learning_rate, config.generator_clip_norm) != (None, None):
        raise UserError(
            "T5X cannot shard the optimizer's state where groups of parameters have update rules of their own: set "
            "OptimizerConfig.rule to another than 'muon', GENERATOR_LEARNING_RATE and GENERATOR_CLIP_NORM to None, or "
            "use electra pretrain"
        )
    from t5x import optimizers

    return optimizers.OptaxWrapper(optimizer.make_optimizer(config))


class PretrainingModel:
    """A pre-training run for T5X's trainer: any objective, masked by its task or on the device.

    T5X has its own bindings for the data, the batch size, the number of steps and the directory.
    """

    def __init__(self, run: PretrainingRun) -> None:
        """Read the vocabulary.

        Raises:
            UserError: if the run accumulates gradients, which T5X adds up as if each micro-batch were a batch, or has
                phases or a schedule of a weight, the temperature, the masks or its batches: T5X gives a loss no step.
        """
        if run.accumulation_steps != 1:
            raise UserError(
                f"ACCUMULATION_STEPS is {run.accumulation_steps}: under T5X it must be 1, because T5X divides no loss "
                "by the whole batch's weight; use a smaller BATCH_SIZE, or electra pretrain"
            )
        if run.weight_schedule.disc_weight_end != 1:
            raise UserError(
                f"DISC_WEIGHT_END is {run.weight_schedule.disc_weight_end}: under T5X it must be 1.0, because T5X does "
                "not tell a loss its step; use electra pretrain"
            )
        schedules = {"temperature": getattr(run.objective, "temperature", 1.0), "MASK_PROB": run.mask_prob}
        for name, value in schedules.items():
            if not isinstance(value, int | float):
                raise UserError(
                    f"{name} is {value}: under T5X it must be a number, because T5X does not tell a loss its step; use "
                    "electra pretrain"
                )
        if run.batch_shapes.changes:
            raise UserError(
                "BATCH_SIZE_WARMUP and SEQUENCE_LENGTH_WARMUP must be () under T5X, whose batches all have one shape; "
                "use electra pretrain"
            )
        if run.phases_config != PUBLISHED:
            raise UserError(
                "GENERATOR_FIRST, COPY_GENERATOR and FREEZE_GENERATOR are not for T5X, which trains all parameters at "
                "every step: use electra pretrain"
            )
        self.run = run
        self.vocabulary = data.vocabulary_for(run.cache, run.encoder)
        self._pieces = {
            "model": run.model,
            "objective": run.objective,
            "masking": run.masking_of(self.vocabulary),
        }
        self._finish = functools.partial(metrics.finish, loss_weights=run.objective.loss_weights)
        masks = run.masking == "task"
        self.FEATURE_CONVERTER_CLS = (
            pretraining_tasks.MaskedFeatureConverter if masks else pretraining_tasks.UnmaskedFeatureConverter
        )

    @functools.cached_property
    def optimizer_def(self) -> Any:
        """T5X's wrapper of the run's optimizer."""
        return optimizer_def(self.optimizer_config)

    @property
    def optimizer_config(self) -> OptimizerConfig:
        """The update rule."""
        return self.run.optimizer

    def get_initial_variables(
        self, rng: jax.Array, input_shapes: Mapping[str, Sequence[int]], input_types: Mapping[str, Any] | None = None
    ) -> dict[str, PyTree]:
        """Return random parameters and their axes; see `with_axes`."""
        del input_types
        with nn.logical_axis_rules(()):
            return with_axes(steps.init_params(rng, self.run.model, input_shapes["input_ids"][-1]))

    def loss_fn(self, params: PyTree, batch: Batch, dropout_rng: jax.Array | None) -> tuple[jax.Array, Metrics]:
        """Return the loss of a global batch and its metrics.

        Args:
            params: the parameters.
            batch: the global batch.
            dropout_rng: the step's key, uint32 [2]; None to evaluate.
        """
        if dropout_rng is None:
            return self.eval_fn(params, batch)
        step_key = jax.random.wrap_key_data(dropout_rng)
        drawn = steps.draw(step_key, batch, objective=self._pieces["objective"], masking=self._pieces["masking"])
        loss, sums = steps.training_loss(params, drawn, 0, **self._pieces)
        return loss, reported(sums, self._finish)

    def eval_fn(self, params: PyTree, batch: Batch) -> tuple[jax.Array, Metrics]:
        """Return the loss without dropout, and its metrics; every batch is masked and sampled with the same key."""
        # T5X cuts batches itself.
        whole = {"accumulation_steps": 1, "extra_metrics": None}
        sums = evaluation.evaluate_step(params, batch, jax.random.key(0), **self._pieces, **whole)
        weights = self._pieces["objective"].loss_weights
        parts = {name: sums[f"{name}_loss"] / jnp.maximum(sums[f"{name}_loss_weight"], 1.0) for name in weights}
        return sum(weight * parts[name] for name, weight in weights.items()), reported(sums, self._finish)

    def register(self) -> str:
        """Register the run's SeqIO task, tokenising a small corpus first, and return the task's name."""
        run = self.run
        if run.mixture_or_task_name is None:
            return data.register_corpus_tasks(run, self.vocabulary)
        return run.mixture_or_task_name + ("" if run.masking == "task" else pretraining_tasks.UNMASKED_SUFFIX)

    def feature_lengths(self) -> dict[str, int]:
        """Return SeqIO's `sequence_length` for the task."""
        masked = self.run.masking == "task"
        return pretraining_tasks.feature_lengths(
            self.run.cache.sequence_length, mask_prob=self.run.mask_prob if masked else None
        )

    def describe(self) -> tuple[Description, Vocabulary]:
        """Return the record and vocabulary that make the checkpoints a model directory of `electra pretrain`."""
        shapes = jax.eval_shape(
            lambda: nn.unbox(steps.init_params(jax.random.key(0), self.run.model, self.run.cache.sequence_length))
        )
        description = loading.describe_towers(self.run, *plain_towers.plain_tower_shapes(shapes), {})
        facts = description.facts | {"made by": "T5X", "sequence length": self.run.cache.sequence_length}
        return dataclasses.replace(description, facts=facts), self.vocabulary


# Settings that T5X's own trainer does not support, with the values that leave them unused.
FINETUNE_ONLY = {"class_weights": None, "frozen_layers": None, "accumulation_steps": 1, "patience": None}


class FinetuningModel:
    """A fine-tuning run for T5X's training, evaluation and inference: classification, regression and tagging.

    Sizes and vocabulary are those of INIT_FROM. T5X itself restores the weights, from the path that Gin binds.
    """

    def __init__(self, run: FinetuningRun, num_train_steps: int | None) -> None:
        """Read the task; `num_train_steps` is for the schedule, None for a model that is only evaluated.

        Raises:
            UserError: if T5X cannot write the task's predictions (question answering, multiple choice, prompts, vectors
                or several labels a text) or does not support a setting, or as `resolve_init`.
        """
        begun = start.resolve_init(run)
        self.run, self.vocabulary, self._num_train_steps = run, begun.vocabulary, num_train_steps
        self.task = make_task(run.task, begun.vocabulary)
        if self.task.kind in ("question_answering", "multiple_choice", "prompt", *VECTOR_KINDS):
            kind = self.task.kind.replace("_", " ")
            raise UserError(f"{self.task.name} is {kind}, which T5X has no place for: use electra finetune")
        set_here = [name for name, neutral in FINETUNE_ONLY.items() if getattr(run, name) != neutral]
        if set_here:
            raise UserError(f"{set_here[0].upper()} is a setting of electra finetune, which T5X does not follow")
        if self.task.kind == "multi_label_classification":
            raise UserError(
                f"{self.task.name} gives a text several labels, which T5X does not support: use electra finetune"
            )
        head = run.heads.head_for(
            self.task.kind, encoder=begun.encoder, num_labels=len(self.task.labels), final_sep_answers=False
        )
        self._model = FinetunedModel(begun.encoder, head)
        self._loss = finetuning.LossConfig(self.task.kind, run.answerable_weight, 1.0, None, run.temperature)
        self.FEATURE_CONVERTER_CLS = seqio_export.FEATURE_CONVERTERS[self.task.kind]

    @functools.cached_property
    def optimizer_def(self) -> Any:
        """T5X's wrapper of the run's optimizer."""
        return optimizer_def(self.optimizer_config)

    @property
    def optimizer_config(self) -> OptimizerConfig:
        """The update rule over `num_train_steps`."""
        steps_in_all = self._num_train_steps
        return self.run.optimizer(
            num_train_steps=steps_in_all, num_warmup_steps=steps_in_all * self.run.warmup_fraction
        )

    def get_initial_variables(
        self, rng: jax.Array, input_shapes: Mapping[str, Sequence[int]], input_types: Mapping[str, Any] | None = None
    ) -> dict[str, PyTree]:
        """Return random parameters and their axes; see `with_axes`."""
        del input_shapes, input_types
        with nn.logical_axis_rules(()):
            return with_axes(finetuning.init_params(rng, self._model))

    def loss_fn(self, params: PyTree, batch: Batch, dropout_rng: jax.Array | None) -> tuple[jax.Array, Metrics]:
        """Return the loss of a batch and its metrics; `dropout_rng` is the step's key, None to evaluate."""
        rows = batch | {"row_weight": jnp.ones(len(batch["input_ids"]), jnp.float32)}
        loss, term = finetuning.training_loss(params, rows, dropout_rng, model=self._model, loss=self._loss)
        # T5X pads all rows to one length, so that every batch is a random one.
        divisor = jnp.where(term.weight > 0, term.weight, 1.0) if self.run.loss_reduction == "mean" else 1.0
        return loss / divisor, {"loss": clu.metrics.Average(total=term.sum, count=term.weight)}

    def eval_fn(self, params: PyTree, batch: Batch) -> tuple[jax.Array, Metrics]:
        """Return the loss without dropout, and its metrics."""
        return self.loss_fn(params, batch, None)

    def predict_batch(self, params: PyTree, batch: Batch, rng: jax.Array | None = None) -> jax.Array:
        """Return predictions for `seqio_export`: classes int32 [B, 1], values float32 [B, 1] or labels int32 [B, L]."""
        del rng
        logits = head_outputs(params, finetuning.tokens_of(batch), model=self._model)
        if self.task.kind == "regression":
            return logits
        labels = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return labels if self.task.kind == "tagging" else labels[:, None]

    def predict_batch_with_aux(
        self, params: PyTree, batch: Batch, rng: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the predictions, and the logits from which they come."""
        logits = head_outputs(params, finetuning.tokens_of(batch), model=self._model)
        return self.predict_batch(params, batch, rng), {"logits": logits}

    def score_batch(self, params: PyTree, batch: Batch, return_intermediates: bool = False) -> jax.Array:
        """Return minus the loss of each row, float32 [B]: for classification the log probability of its label."""
        del return_intermediates

        def score(row: Batch) -> jax.Array:
            alone = {name: value[None] for name, value in row.items()} | {"row_weight": jnp.ones(1, jnp.float32)}
            _, term = finetuning.training_loss(params, alone, None, model=self._model, loss=self._loss)
            return -term.sum

        return jax.vmap(score)(batch)

    def register(self) -> str:
        """Register the task with SeqIO and return its name."""
        seqio_export.register(self.task)
        return self.task.name

    def feature_lengths(self) -> dict[str, int]:
        """Return SeqIO's `sequence_length` for the task."""
        return seqio_export.sequence_lengths(self.task)

    def describe(self) -> tuple[Description, Vocabulary]:
        """Return the record and vocabulary that make the checkpoints a model directory of `electra finetune`."""
        description = Description(
            kind=MODEL_KINDS[self.task.kind],
            discriminator=dataclasses.replace(self._model.config, attention="exact"),
            generator=None,
            generator_embeddings=False,
            head=self._model.head_config,
            labels=self.task.labels,
            facts={"made by": "T5X", "task": self.task.describe(), "init from": self.run.init_from},
        )
        return description, self.vocabulary


Model = PretrainingModel | FinetuningModel


def task_name(model: Model) -> str:
    """Register the model's task with SeqIO and return its name."""
    return model.register()


def feature_lengths(model: Model) -> dict[str, int]:
    """Return T5X's `task_feature_lengths`."""
    return model.feature_lengths()


def newest_checkpoint(model_dir: str) -> str:
    """Return the folder of T5X's newest checkpoint in a model directory, which t5x.infer does not find itself."""
    return str(orbax_store.newest_state(path_of(model_dir)).folder.parent)


def learning_rate_fn(model: Model) -> Callable[[jax.Array], jax.Array]:
    """Return the learning-rate schedule for T5X's trainer to report; the optimizer has its own."""
    return functools.partial(optimizer.learning_rate, model.optimizer_config)


def partitioner(num_partitions: int, parameter_partitioning_dims: int) -> Any:
    """Return T5X's partitioner with its standard rules, and a mesh of `num_partitions` devices a model on CPUs too.

    Args:
        num_partitions: devices that share one copy of the model; heads, ffn and vocabulary are divided among them.
        parameter_partitioning_dims: 2 to divide parameters and optimizer state among the other devices too.
    """
    from t5x import partitioning

    rules = partitioning.standard_logical_axis_rules(parameter_partitioning_dims=parameter_partitioning_dims)
    made = partitioning.PjitPartitioner(num_partitions=num_partitions, logical_axis_rules=rules)
    if jax.default_backend() == "cpu":
        # T5X gives one model all CPUs, whatever num_partitions says; this sets its cached property.
        made.mesh = Mesh(np.array(jax.devices()).reshape(-1, num_partitions), ("data", "model"))
    return made


def summarize_config(model_dir: str, summary_writer: Any, step: int, *, model: Model) -> None:
    """Write T5X's record of the configuration, and next to it ours, with which `electra` reads the checkpoints."""
    from t5x import gin_utils

    gin_utils.summarize_gin_config(model_dir, summary_writer, step)
    if jax.process_index() == 0:
        description, vocabulary = model.describe()
        write_model_record(path_of(model_dir), description)
        write_tokenizer(model_dir, vocabulary)
