"""Configure `electra probe`, which encoder is probed for which labels, and its baseline `electra trigram`."""

import dataclasses
from collections.abc import Callable
from typing import Annotated

from electra_jax.config.pretraining import CacheConfig
from electra_jax.errors import UserError
from electra_jax.model.config import EncoderConfig
from electra_jax.ranges import AT_LEAST_1, NAMED, POSITIVE, POSITIVE_SHARE, RUNS, SEED, Checked
from electra_jax.tasks.options import TaskOptions


@dataclasses.dataclass(frozen=True)
class ProbeRun(Checked):
    """Everything that determines a probe.

    Attributes:
        model_dir: the run directory.
        init_from: the model directory whose encoder is probed; None for random weights.
        vocab_file, lowercase, encoder: see `finetuning.FinetuningRun`.
        task: the probe, a name of `tasks.tagging.probing.COLUMNS`, and where its sentences are.
        num_train_sentences: training sentences, drawn by the seed; all if there are no more.
        mask_prob: share of the tokens that are masked, for "words".
        penalty: see `softmax_regression.fit`.
        max_iterations: iterations of a fit.
        batch_size: sentences of a batch; changes only the speed.
        num_seeds: number of probes; the score of each is reported.
        seed: seed of the first; the others count up. It determines the training sentences, the masks, and random
            weights.
    """

    model_dir: Annotated[str, NAMED]
    init_from: str | None
    vocab_file: str | None
    lowercase: bool | None
    encoder: Callable[[], EncoderConfig]
    task: TaskOptions
    num_train_sentences: Annotated[int, AT_LEAST_1]
    mask_prob: Annotated[float, POSITIVE_SHARE]
    penalty: Annotated[float, POSITIVE]
    max_iterations: Annotated[int, AT_LEAST_1]
    batch_size: Annotated[int, AT_LEAST_1]
    num_seeds: Annotated[int, RUNS]
    seed: Annotated[int, SEED]

    @property
    def seeds(self) -> range:
        """The seeds of the probes."""
        return range(self.seed, self.seed + self.num_seeds)


@dataclasses.dataclass(frozen=True)
class TrigramRun(Checked):
    """Everything that determines the score of a trigram model.

    Attributes:
        model_dir: the run directory.
        cache: the text that is counted, the training split of its cache, and the vocabulary.
        task: where the sentences of the probe "words" are.
        mask_prob, num_seeds, seed: see `ProbeRun`; with the same values the same tokens are masked.
    """

    model_dir: Annotated[str, NAMED]
    cache: CacheConfig
    task: TaskOptions
    mask_prob: Annotated[float, POSITIVE_SHARE]
    num_seeds: Annotated[int, RUNS]
    seed: Annotated[int, SEED]

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: if a number is out of range, or the task is not "words".
        """
        super().__post_init__()
        if self.task.task != "words":
            raise UserError(
                f"TASK is {self.task.task!r}: a trigram model predicts tokens under masks, set it to 'words'"
            )

    @property
    def seeds(self) -> range:
        """The seeds of the masks."""
        return range(self.seed, self.seed + self.num_seeds)
