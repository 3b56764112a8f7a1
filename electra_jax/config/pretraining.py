"""Configure `electra pretrain`, `cache` and `vocab`: the dataclasses that Gin binds, none with a hidden default."""

import dataclasses
from typing import Annotated, Any

import jax
import optax
from flax import linen as nn

from electra_jax import ranges
from electra_jax.config.corpora import CorpusConfig
from electra_jax.data.batch_shapes import SHORTEST_TARGET, BatchShape, BatchShapes, Warmup
from electra_jax.data.blocks import WORD_MARK
from electra_jax.errors import UserError
from electra_jax.model.config import FULL, SLIDING, EncoderConfig
from electra_jax.model.electra import generator_config
from electra_jax.model.embeddings import EXTENSIONS
from electra_jax.model.types import PyTree
from electra_jax.pretraining import flops, phases, registry
from electra_jax.pretraining.corruption import MaskingConfig, max_predictions
from electra_jax.pretraining.mask_units import WordTokens, position_rule
from electra_jax.pretraining.objective import Objective, WeightSchedule
from electra_jax.pretraining.phases import Phases, PhasesConfig
from electra_jax.pretraining.rules import PretrainingRules
from electra_jax.pretraining.steps import PretrainingSetup, init_params
from electra_jax.ranges import AT_LEAST_0, AT_LEAST_1, NAMED, PROCESSES, SEED, SHARE, UNDER_1, Checked, Range
from electra_jax.training.loop import LoopConfig
from electra_jax.training.optimizer import GENERATOR, OptimizerConfig, make_optimizer
from electra_jax.training.schedules import Schedule, check_schedule
from electra_jax.training.sharding import MeshConfig
from electra_jax.training.update_rules import muon_flops


@dataclasses.dataclass(frozen=True)
class CacheConfig(Checked):
    """The tokenised examples of a text: how they are made, and where they are kept.

    Attributes:
        source: the text.
        vocab_file: BERT's vocab.txt, or any tokenizer.json.
        lowercase: None to take the casing from the record of a vocab.txt.
        cache_dir: the folder of all caches, with a directory for each combination of these settings; it also holds
            files made from a CORPUS that is a read-only cache. None for the user's cache folder.
        sequence_length: length of an example, [CLS] and [SEP] included.
        one_segment_share: share of examples with one segment.
        random_length_share: share of examples that aim at a random, shorter length.
        word_marks: whether the spaces of the text mark its words even if the tokenizer does not keep them, as in
            Chinese that a segmenter has divided. MASK_UNIT then follows these marks.
        held_out_fraction: share of documents held out for validation.
        num_processes: number of processes that tokenise; 0 for one per core.
        max_auto_cache_bytes: size up to which `electra pretrain` caches a corpus without being asked.
        seed: seed for the segments and lengths that are drawn.
        example_building: how documents become examples, a name that `tasks.original.choice.example_builder` takes.
        allow_unknown: continue even if more than a fifth of the text's tokens are [UNK].
    """

    source: CorpusConfig
    vocab_file: str
    lowercase: bool | None
    cache_dir: str | None
    sequence_length: Annotated[int, Range(SHORTEST_TARGET)]
    one_segment_share: Annotated[float, SHARE]
    random_length_share: Annotated[float, SHARE]
    word_marks: bool
    held_out_fraction: Annotated[float, UNDER_1]
    num_processes: Annotated[int, PROCESSES]
    max_auto_cache_bytes: Annotated[int, AT_LEAST_0]
    seed: Annotated[int, SEED]
    example_building: str
    allow_unknown: bool


@dataclasses.dataclass(frozen=True)
class CacheRun:
    """Everything that determines an `electra cache`.

    Attributes:
        cache: the cache to build.
        tfrecords: whether to write TFRecords too, which SeqIO and T5X read.
    """

    cache: CacheConfig
    tfrecords: bool


@dataclasses.dataclass(frozen=True)
class VocabularyRun(Checked):
    """Everything that determines an `electra vocab`.

    Attributes:
        source: the text to learn from.
        vocab_file: the file to write: a vocab.txt, next to which a tokenizer.json is written, or a tokenizer.json.
        extend: a WordPiece vocabulary to which words of the text are added, a file or a model directory; None to learn
            a new one.
        algorithm: "wordpiece", "bpe" (byte-level) or "unigram".
        vocab_size: number of entries.
        lowercase, strip_accents: how text is normalized before it is split, see `tasks.scripts.choose_casing`.
        min_frequency: number of times that a pair of pieces must occur to be merged; no effect on "unigram".
        limit_alphabet: for "wordpiece", the largest number of single characters; None for 99.99 % of the text.
        sample_mb: megabytes of text to learn from, drawn at random if there is more.
        allow_unknown: continue even if more than a fifth of the text becomes [UNK].
    """

    source: CorpusConfig
    vocab_file: Annotated[str, NAMED]
    extend: str | None
    algorithm: str
    vocab_size: Annotated[int, ranges.ENTRIES]
    lowercase: bool | None
    strip_accents: bool | None
    min_frequency: Annotated[int, AT_LEAST_1]
    limit_alphabet: Annotated[int | None, AT_LEAST_1]
    sample_mb: Annotated[int, AT_LEAST_1]
    allow_unknown: bool


@dataclasses.dataclass(frozen=True)
class PretrainingRun:
    """Everything that determines a pre-training run.

    Attributes:
        model_dir: the run directory.
        init_from: a model directory to initialize a new run's weights from, by role: see `checkpoints.roles`; None for
            random weights.
        map_vocabulary: whether to match the embedding rows of an `init_from` with another vocabulary by token; tokens
            that it lacks get new rows.
        extend_positions: how to initialize the rows of a learned position table that a shorter one in `init_from`
            lacks, a name of `embeddings.EXTENSIONS`; None to refuse a shorter table.
        encoder: the discriminator's encoder.
        generator_width_fraction, generator_depth_fraction: the generator's sizes as fractions of the discriminator's;
            no effect if the generator has no encoder of its own.
        generator_encoder: the generator's explicit sizes, as `electra import` binds those of a pair; None to use the
            fractions.
        generator_kind: "small" (an encoder of its own), "tied" (the discriminator's), "uniform" (any token),
            "two_tower" (an encoder for each direction) or "none".
        generator_embeddings: size of the generator's embeddings: the discriminator's "embedding_size", or the
            generator's own "hidden_size", for embeddings that are not shared.
        embedding_sharing: "es", "gdes" or "nes": see `model.electra.Electra`.
        objective: the loss.
        mask_prob, mask_token_prob: see `MaskingConfig`.
        masking: "device" draws masks in the jitted step; "task" takes those that a named task or mixture draws itself,
            on the host (a corpus is always masked on the device).
        mask_unit: the unit that is masked as a whole, one of `mask_units.MASK_UNITS`.
        optimizer: the settings of the update rule.
        mesh: the device mesh.
        cache: the tokenised text.
        mixture_or_task_name: a registered SeqIO task or mixture, instead of the cache's corpus.
        batch_size: rows of a global batch.
        accumulation_steps: micro-batches of a global batch.
        loop: the number of steps, and the intervals between reports, evaluations and checkpoints.
        num_evaluation_examples: held-out examples of each evaluation during training.
        num_passages: held-out passages shown in the report.
        seed: seed of the initial weights, the order of examples, masks, samples and dropout.
        weight_schedule: how the weights of the losses change over the steps.
        schedule_steps: steps over which the schedules of hyperparameters run (see `training.schedules`).
        generator_first, copy_generator, freeze_generator: see `phases.PhasesConfig`.
        batch_size_warmup, sequence_length_warmup: smaller batches and shorter rows in the first steps, as
            (share of the steps up to which, size) pairs: see `data.batch_shapes.BatchShapes`. Examples are cut to the
            shorter rows, and the rest of them is not trained on.
        packing: whether several examples of the corpus share a row if they fit, each attending only to its own tokens;
            held-out text keeps one example a row.
        rules: the implementation whose rules draw masks and report metrics if they differ, a name of `registry.RULES`.
    """

    model_dir: Annotated[str, NAMED]
    init_from: str | None
    map_vocabulary: bool
    extend_positions: str | None
    encoder: EncoderConfig
    generator_width_fraction: Annotated[float, ranges.MULTIPLE]
    generator_depth_fraction: Annotated[float, ranges.MULTIPLE]
    generator_encoder: EncoderConfig | None
    generator_kind: str
    generator_embeddings: str
    embedding_sharing: str
    objective: Objective
    mask_prob: Schedule
    mask_token_prob: Annotated[float, SHARE]
    masking: str
    mask_unit: str
    optimizer: OptimizerConfig
    mesh: MeshConfig
    cache: CacheConfig
    mixture_or_task_name: str | None
    batch_size: Annotated[int, AT_LEAST_1]
    accumulation_steps: Annotated[int, AT_LEAST_1]
    loop: LoopConfig
    num_evaluation_examples: Annotated[int, AT_LEAST_1]
    num_passages: Annotated[int, AT_LEAST_0]
    seed: Annotated[int, SEED]
    weight_schedule: WeightSchedule
    schedule_steps: Annotated[int, AT_LEAST_1]
    generator_first: Annotated[float, UNDER_1]
    copy_generator: bool
    freeze_generator: bool
    batch_size_warmup: Warmup
    sequence_length_warmup: Warmup
    packing: bool
    rules: str

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: if a setting is out of range, or two contradict each other.
        """
        ranges.check(self)
        registry.check_masking(self.masking, mask_unit=self.mask_unit, mask_prob=self.mask_prob, rules=self.rules)
        if self.encoder.dtype not in ("float32", "bfloat16"):
            raise UserError(f"DTYPE is {self.encoder.dtype!r}: it must be 'float32' or 'bfloat16'")
        if self.cache.sequence_length > self.encoder.max_position_embeddings:
            raise UserError(
                f"SEQUENCE_LENGTH {self.cache.sequence_length} is longer than the model's "
                f"{self.encoder.max_position_embeddings} positions: set SEQUENCE_LENGTH or MAX_POSITIONS"
            )
        if SLIDING in self.encoder.kinds and self.encoder.local_attention > self.cache.sequence_length:
            raise UserError(
                f"EncoderConfig.local_attention {self.encoder.local_attention} is a longer window than SEQUENCE_LENGTH "
                f"{self.cache.sequence_length}: set it to {self.cache.sequence_length} or less, or "
                f'EncoderConfig.layer_types to ("{FULL}",)'
            )
        if self.extend_positions not in (None, *EXTENSIONS):
            names = ", ".join(map(repr, EXTENSIONS))
            raise UserError(f"EXTEND_POSITIONS is {self.extend_positions!r}: it must be None or one of {names}")
        if self.generator_embeddings not in ("embedding_size", "hidden_size"):
            raise UserError(
                f"generator_embeddings is {self.generator_embeddings!r}: it must be 'embedding_size' or 'hidden_size'"
            )
        if self.packing and self.mixture_or_task_name is not None:
            raise UserError(
                f"PACKING needs all examples at hand, and MIXTURE_OR_TASK_NAME {self.mixture_or_task_name!r} is a "
                "stream: set PACKING to False, or name the directory of the task's cache as CORPUS instead"
            )
        if self.cache.word_marks and self.mixture_or_task_name is not None:
            raise UserError(
                f"WORD_MARKS is for a CORPUS, and MIXTURE_OR_TASK_NAME {self.mixture_or_task_name!r} has no marks: set "
                "it to False"
            )
        self._check_schedules()
        registry.check(**self.variant)
        rates = self.optimizer.generator_learning_rate, self.optimizer.generator_clip_norm
        phases.check(self.phases_config, **self.variant, own_rate=rates != (None, None), init_from=self.init_from)

    def _check_schedules(self) -> None:
        """Check the settings that change over the steps."""
        check_schedule(
            "MASK_PROB", self.mask_prob, valid=lambda share: 0 < share < 1, rule="must be above 0 and under 1"
        )
        if self.weight_schedule.disc_weight_end != 1 and "discriminator" not in self.objective.loss_weights:
            raise UserError(
                f"DISC_WEIGHT_END is {self.weight_schedule.disc_weight_end}, and {type(self.objective).__name__} has "
                "no discriminator: set it to 1.0"
            )
        if self.batch_shapes.changes and self.mixture_or_task_name is not None:
            raise UserError(
                f"BATCH_SIZE_WARMUP and SEQUENCE_LENGTH_WARMUP are for a CORPUS, and MIXTURE_OR_TASK_NAME "
                f"{self.mixture_or_task_name!r} is a stream: set both to (), or name the directory of the task's cache "
                "as CORPUS instead"
            )

    @property
    def pretraining_rules(self) -> PretrainingRules:
        """Return the rules that `rules` names."""
        return registry.RULES[self.rules]

    @property
    def generator(self) -> EncoderConfig:
        """The generator's sizes."""
        if self.generator_encoder is not None:
            return self.generator_encoder
        shared = self.generator_embeddings == "embedding_size"
        return generator_config(
            self.encoder,
            width_fraction=self.generator_width_fraction,
            depth_fraction=self.generator_depth_fraction,
            embedding_size=self.encoder.embedding_size if shared else 0,
        )

    @property
    def variant(self) -> dict[str, Any]:
        """The arguments of `registry.check` and `registry.make_model`."""
        own_encoder = self.generator_kind in ("small", "two_tower")
        return {
            "objective": self.objective,
            "generator_kind": self.generator_kind,
            "embedding_sharing": self.embedding_sharing,
            "generator": self.generator if own_encoder else None,
            "discriminator": self.encoder,
        }

    @property
    def model(self) -> nn.Module:
        """The model that the objective trains."""
        return registry.make_model(**self.variant)

    @property
    def phases_config(self) -> PhasesConfig:
        """The schedule of when each tower is trained."""
        return PhasesConfig(self.generator_first, self.copy_generator, self.freeze_generator)

    @property
    def batch_shapes(self) -> BatchShapes:
        """The shape of each batch."""
        return BatchShapes(
            BatchShape(self.batch_size, self.cache.sequence_length),
            self.batch_size_warmup,
            self.sequence_length_warmup,
            self.schedule_steps,
        )

    def max_predictions(self, sequence_length: int) -> int:
        """Return the largest number of positions that are masked in a row of this length at any step."""
        return max_predictions(self.mask_prob, sequence_length)

    @property
    def generator_steps(self) -> int:
        """The number of updates of the generator alone."""
        stages = ((stage.end - stage.start, stage.shape) for stage in self.batch_shapes.stages)
        costs = [(count, self.generator_step_flops(shape), self.step_flops(shape)) for count, shape in stages]
        return phases.generator_steps(self.generator_first, costs) if self.generator_first else 0

    def generator_step_flops(self, shape: BatchShape) -> int:
        """Return the matrix FLOPs of a step that trains the generator alone, with batches of a shape."""
        return self._step_flops(shape, trained="generator")

    def step_flops(self, shape: BatchShape) -> int:
        """Return the matrix FLOPs of a step after the generator-only steps, with batches of a shape."""
        return self._step_flops(shape, trained="main" if self.freeze_generator else "both")

    def _step_flops(self, shape: BatchShape, *, trained: str) -> int:
        """Return the FLOPs of a step that trains some towers (see `flops.step_flops`), with batches of a shape.

        The optimizer's FLOPs count: Muon's products do not become fewer with a smaller batch.
        """
        arguments = {name: value for name, value in self.variant.items() if name != "embedding_sharing"}
        slots = self.max_predictions(shape.sequence_length)
        cost = flops.step_flops(**arguments, **shape._asdict(), max_predictions=slots, trained=trained)
        if self.optimizer.rule != "muon":
            return cost
        shapes = self.parameter_shapes()
        return cost + muon_flops(phases.of_main(shapes, self.embedding_sharing) if self.phases_config.ready else shapes)

    def parameter_shapes(self) -> PyTree:
        """Return the shape of each of the model's parameters."""
        length = self.cache.sequence_length
        return nn.unbox(jax.eval_shape(lambda key: init_params(key, self.model, length), jax.random.key(0)))

    def update_rule(self) -> optax.GradientTransformation:
        """Return the optimizer; a generator learning rate applies to everything only the generator's loss trains."""
        disentangled = self.embedding_sharing == "gdes"
        rule = make_optimizer(self.optimizer, generator=f"({GENERATOR}|embeddings/)" if disentangled else GENERATOR)
        return phases.for_main(rule, self.embedding_sharing) if self.phases_config.ready else rule

    def masking_config(
        self, *, cls_id: int, sep_id: int, mask_id: int, begins_word: list[bool] | None = None
    ) -> MaskingConfig:
        """Return the masking with a vocabulary's special ids and, unless MASK_UNIT is "token", its word beginnings."""
        word_mark = WORD_MARK if self.cache.word_marks else None
        return MaskingConfig(
            mask_prob=self.mask_prob,
            mask_token_prob=self.mask_token_prob,
            positions=position_rule(self.mask_unit, self.pretraining_rules.positions, begins_word, word_mark),
            cls_id=cls_id,
            sep_id=sep_id,
            mask_id=mask_id,
            word_mark=word_mark,
        )

    def masking_of(self, vocabulary: WordTokens) -> MaskingConfig:
        """Return the masking for a vocabulary.

        Raises:
            UserError: if words are masked but the vocabulary does not say where they begin.
        """
        reads_tokens = self.mask_unit != "token" and not self.cache.word_marks
        begins_word = vocabulary.begins_word if reads_tokens else None
        special = {"cls_id": vocabulary.cls_id, "sep_id": vocabulary.sep_id, "mask_id": vocabulary.mask_id}
        return self.masking_config(**special, begins_word=begins_word)

    def setup(self, vocabulary: WordTokens) -> PretrainingSetup:
        """Return the parts of the training steps, with a vocabulary's special ids; raises as `masking_of`."""
        return PretrainingSetup(
            model=self.model,
            objective=self.objective,
            masking=self.masking_of(vocabulary),
            optimizer=self.update_rule(),
            sequence_length=self.cache.sequence_length,
            accumulation_steps=self.accumulation_steps,
            weight_schedule=self.weight_schedule,
            schedule_steps=self.schedule_steps,
            phases=Phases(
                self.phases_config,
                generator_steps=self.generator_steps,
                warmup_steps=self.optimizer.num_warmup_steps,
                embedding_sharing=self.embedding_sharing,
            ),
        )
