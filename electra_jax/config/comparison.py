"""Configure `electra compare`: variants of pre-training, their FLOPs, and the tasks that they are scored on."""

import dataclasses
import itertools
import re
from collections.abc import Collection, Sequence
from typing import Annotated, NamedTuple

from electra_jax import ranges
from electra_jax.errors import UserError
from electra_jax.ranges import NAMED, POSITIVE, POSITIVE_SHARE, RUNS, SEED, SHARE
from electra_jax.run_directory import COMPARISON, CONFIG, FIGURE, ITEMS_LOCK, LOCK, REPORT

# Takes the place of a variant's name for fine-tunings that start from random weights.
RANDOM = "random"
# The same for the trigram model, by which variants are found void.
TRIGRAM = "trigram"
# The folder of a fraction's pre-training, next to those of its fine-tunings.
PRETRAIN = "pretrain"
# The prefix that turns a task's name into that of a probe: "probe_chunk" is the task `chunk` of `electra probe`.
PROBE = "probe_"
# The prefix for minimal pairs: each checkpoint is scored on them by `electra evaluate`.
PAIRS = "pairs_"
# The names in MODEL_DIR that no variant can have, and the suffixes of the files next to its folders.
_TAKEN = (RANDOM, TRIGRAM, COMPARISON, FIGURE, REPORT, CONFIG, LOCK, ITEMS_LOCK)
_SUFFIXES = (".json", ".log", ".part")
# What `electra compare` binds itself in every process: another value would have no effect.
_BOUND_HERE = {
    "pretraining": ("MODEL_DIR", "TRAIN_STEPS", "training.LoopConfig.num_train_steps"),
    "finetuning": ("MODEL_DIR", "INIT_FROM", "NUM_SEEDS", "SEED", "OUTPUT"),
}


# What TUNE and COOL_DOWN bind in addition.
_TUNED = ("LEARNING_RATE", "WARMUP_STEPS")
_COOLED = ("LR_DECAY_SHARE", "SCHEDULE_STEPS")


class GridPoint(NamedTuple):
    """A learning rate, and a warm-up as a share of the steps."""

    learning_rate: float
    warmup: float


class Overrides(NamedTuple):
    """A variant or a task: its name, Gin files, and bindings (NAME=VALUE), which come after the shared ones."""

    name: str
    files: tuple[str, ...]
    bindings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ComparisonRun:
    """Everything that determines a comparison.

    Attributes:
        model_dir: the directory of the comparison; an existing one is resumed.
        vocab_file: BERT's vocab.txt or any tokenizer.json, for every pre-training.
        corpus: the text of every pre-training, as `electra pretrain` takes it.
        flops: matrix FLOPs of each pre-training, backward pass and generator included; see `flops`.
        fractions: increasing fractions of `flops`; a checkpoint is fine-tuned at each.
        variants: variants of pre-training: (name, override, ...), where an override is a Gin file (it ends in .gin) or
            a binding ("DROPOUT = 0.0"). A name alone is a variant without overrides.
        tasks: tasks to fine-tune on, written like `variants`. The name is the task's, unless an override binds TASK.
            A name that begins with `PROBE` is a probe, and one that begins with `PAIRS` a folder of minimal pairs; both
            take only their own overrides. The first task is the primary one, by which variants are tuned and compared.
        num_seeds: fine-tunings of each checkpoint on each task.
        pretraining_seeds: pre-trainings of each variant; with several, spreads are over these.
        seed: seed of the first pre-training of each variant, and of the first fine-tuning; the others count up.
        cool_down: share of each finished run, at its end, in which the learning rate falls to zero; before that it is
            constant. Each fraction is then a branch of one trunk with a cool-down of its own ("warm-up-stable-decay":
            Hu et al., 2024, MiniCPM, section 4). None for one schedule over the whole budget.
        tune: learning rates, and warm-ups as shares of the steps: every pair of them is tried for each variant, which
            is then pre-trained with its best pair, see `compare.tuning`. () for none.
        tune_share: share of `flops` that each of these trials takes.
        processes: number of pre-trainings and fine-tunings that run side by side.
        warmup_fraction: share of each pre-training's own steps, or, with `cool_down`, of its first finished run's.
        random_baseline: whether to fine-tune random weights too, of the size that `pretraining` binds.
        pretraining: Gin files and bindings of every pre-training.
        finetuning: Gin files (in addition to gin/runs/finetune.gin) and bindings of every fine-tuning.
    """

    model_dir: Annotated[str, NAMED]
    vocab_file: str
    corpus: str | None
    flops: Annotated[int | float, POSITIVE]
    fractions: Sequence[float]
    variants: Sequence[str | Sequence[str]]
    tasks: Sequence[str | Sequence[str]]
    num_seeds: Annotated[int, RUNS]
    pretraining_seeds: Annotated[int, RUNS]
    cool_down: Annotated[float | None, POSITIVE_SHARE]
    tune: Sequence[Sequence[float]]
    tune_share: Annotated[float, POSITIVE_SHARE]
    seed: Annotated[int, SEED]
    processes: Annotated[int, RUNS]
    warmup_fraction: Annotated[float, SHARE]
    random_baseline: bool
    pretraining: Sequence[str]
    finetuning: Sequence[str]

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: if a number is out of range, a list is malformed, a name is taken, or a binding has no effect.
        """
        ranges.check(self)
        _check_fractions(self.fractions)
        _check_tune(self.tune)
        _check_names("VARIANTS", self.named_variants, _TAKEN)
        _check_names("TASKS", self.named_tasks, (PRETRAIN,))
        if self.primary.startswith(PAIRS):
            raise UserError(
                f"TASKS begins with {self.primary!r}, and pairs do not compare variants that score them in other ways: "
                "put another task first"
            )
        for command, shared, entries in (
            ("pretraining", self.shared_pretraining, self.named_variants),
            ("finetuning", self.shared_finetuning, self.named_tasks),
        ):
            for entry in (shared, *entries):
                _check_bindings(entry, _BOUND_HERE[command])
                if command == "pretraining":
                    _check_bindings(entry, _TUNED if self.tune else (), by="TUNE")
                    _check_bindings(entry, _COOLED if self.cool_down else (), by="COOL_DOWN")

    @property
    def named_variants(self) -> list[Overrides]:
        """The entries of VARIANTS."""
        return _entries("VARIANTS", self.variants)

    @property
    def named_tasks(self) -> list[Overrides]:
        """The entries of TASKS."""
        return _entries("TASKS", self.tasks)

    @property
    def shared_pretraining(self) -> Overrides:
        """The files and bindings of PRETRAINING."""
        return _shared("PRETRAINING", self.pretraining)

    @property
    def shared_finetuning(self) -> Overrides:
        """The files and bindings of FINETUNING."""
        return _shared("FINETUNING", self.finetuning)

    @property
    def seeds(self) -> range:
        """The seeds of the fine-tunings."""
        return range(self.seed, self.seed + self.num_seeds)

    @property
    def seeds_of_pretraining(self) -> range:
        """The seeds of the pre-trainings that are compared."""
        return range(self.seed, self.seed + self.pretraining_seeds)

    @property
    def tuning_seed(self) -> int:
        """The seed of the tuning pre-trainings, which none of the compared ones has."""
        return self.seed + self.pretraining_seeds

    @property
    def grid(self) -> list[GridPoint]:
        """Every pair of a learning rate and a warm-up of TUNE."""
        return [GridPoint(*pair) for pair in itertools.product(*self.tune)] if self.tune else []

    @property
    def primary(self) -> str:
        """The name of the task by which variants are tuned and compared."""
        return self.named_tasks[0].name


def _check_fractions(fractions: Sequence[float]) -> None:
    if not fractions or not all(isinstance(one, int | float) for one in fractions):
        raise UserError(f"FRACTIONS is {fractions!r}: it must be a list of numbers, as in (0.25, 0.5, 1.0)")
    outside = [one for one in fractions if not 0 < one <= 1]
    if outside:
        raise UserError(f"FRACTIONS has {outside[0]!r}: a fraction of the budget is above 0 and at most 1")
    if list(fractions) != sorted(set(fractions)):
        raise UserError(f"FRACTIONS is {tuple(fractions)}: it must rise, as in (0.25, 0.5, 1.0)")


def _check_tune(tune: Sequence[Sequence[float]]) -> None:
    if not tune:
        return
    numbers = all(isinstance(values, Sequence) for values in tune) and all(
        isinstance(one, int | float) for values in tune for one in values
    )
    if not numbers or len(tune) != 2 or not all(tune):
        raise UserError(
            f"TUNE is {tune!r}: it must be two lists of numbers, learning rates and warm-ups, as in "
            "((1e-3, 2e-3), (0.05, 0.1)), or () for none"
        )
    rates, warmups = tune
    if any(rate <= 0 for rate in rates) or any(not 0 <= warmup < 1 for warmup in warmups):
        raise UserError(
            f"TUNE is {tune!r}: learning rates are above 0, and warm-ups are shares of the steps, from 0 to below 1"
        )
    for values in tune:
        if list(values) != sorted(set(values)):
            raise UserError(f"TUNE has {tuple(values)}: it must rise, as in (1e-3, 2e-3)")


def _check_names(macro: str, entries: Sequence[Overrides], taken: Collection[str]) -> None:
    """Check that every name can be the name of its own folder."""
    names = [entry.name for entry in entries]
    if not names:
        raise UserError(f"{macro} is empty: name at least one")
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
            raise UserError(
                f"{macro} names {name!r}, which also names a folder: use letters, digits and any of _ . + - only"
            )
        if name in taken or name.endswith(_SUFFIXES):
            raise UserError(f"{macro} names {name!r}, which electra compare keeps for itself: use another name")
        if names.count(name) > 1:
            raise UserError(f"{macro} names {name!r} twice: give each its own name")


def _check_bindings(entry: Overrides, bound_here: Collection[str], *, by: str = "electra compare") -> None:
    for binding in entry.bindings:
        target = binding.partition("=")[0]
        if target in bound_here:
            raise UserError(f"{entry.name} binds {target}, which {by} sets itself: leave it out")


def _entries(macro: str, entries: Sequence[str | Sequence[str]]) -> list[Overrides]:
    found = []
    for entry in entries:
        parts = (entry,) if isinstance(entry, str) else entry
        if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, str) for part in parts):
            raise UserError(
                f"{macro} has {entry!r}: an entry is a name and its overrides, each in quotes, as in "
                "('mlm', 'gin/objectives/mlm.gin', 'DROPOUT = 0.0')"
            )
        found.append(_overrides(macro, parts[0], parts[1:]))
    return found


def _shared(macro: str, overrides: Sequence[str]) -> Overrides:
    if not all(isinstance(one, str) for one in overrides):
        raise UserError(f"{macro} is {overrides!r}: it must be a list of Gin files and bindings, each in quotes")
    return _overrides(macro, macro, overrides)


def _overrides(macro: str, name: str, overrides: Sequence[str]) -> Overrides:
    files, bindings = [], []
    for one in overrides:
        target, equals, value = (part.strip() for part in one.partition("="))
        if not equals and one.endswith(".gin"):
            files.append(one)
        elif target and value:
            bindings.append(f"{target}={value}")
        else:
            raise UserError(f"{macro} has {one!r}: an override is a Gin file or NAME = VALUE")
    return Overrides(name, tuple(files), tuple(bindings))
