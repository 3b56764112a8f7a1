"""What `electra compare` does: variants of pre-training at the same FLOPs, and what each is worth downstream."""

import dataclasses
import difflib
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from electra_jax.errors import UserError

# The line of fine-tunings that start from random weights.
RANDOM = "random"
# What stands in MODEL_DIR beside the variants' folders, and beside a fraction's fine-tunings.
_TAKEN = (RANDOM, "comparison.json", "comparison.png", "report.html", "config.gin", "compare.lock", "pieces.lock")
_TAKEN_BY_PRETRAINING = ("pretrain",)


class Named(NamedTuple):
    """A variant or a task: its name, Gin files, and bindings (NAME=VALUE), which come after what all share."""

    name: str
    files: tuple[str, ...]
    bindings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ComparisonRun:
    """Everything that determines a comparison.

    Attributes:
        model_dir: the directory of the comparison; one that is there already is gone on with.
        vocab_file: BERT's vocab.txt, of every pre-training.
        corpus: what every pre-training reads, as `electra pretrain` takes it.
        flops: matrix FLOPs of each pre-training, backward and generator included; see `flops`.
        fractions: of `flops`, rising, at which a checkpoint is fine-tuned.
        variants: of pre-training: (name, override, ...), where an override is a Gin file (it ends in .gin) or a binding
            ("DROPOUT = 0.0"). A name alone is a variant without overrides.
        tasks: to fine-tune on, written as the variants are. The name is the task's, unless an override binds TASK.
        num_seeds: fine-tunings of each checkpoint on each task.
        seed: of every pre-training, and of the first fine-tuning.
        processes: how many pre-trainings and fine-tunings run side by side.
        warmup_fraction: of each pre-training's own steps.
        random_baseline: also fine-tune random weights of the size that `pretraining` says.
        pretraining: Gin files and bindings of every pre-training.
        finetuning: Gin files (beside gin/runs/finetune.gin) and bindings of every fine-tuning.
    """

    model_dir: str
    vocab_file: str
    corpus: str | None
    flops: float
    fractions: Sequence[float]
    variants: Sequence[str | Sequence[str]]
    tasks: Sequence[str | Sequence[str]]
    num_seeds: int
    seed: int
    processes: int
    warmup_fraction: float
    random_baseline: bool
    pretraining: Sequence[str]
    finetuning: Sequence[str]

    def __post_init__(self) -> None:
        """Refuses what cannot be compared.

        Raises:
            UserError: says what is wrong, and with which setting.
        """
        for name in ("num_seeds", "processes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name.upper()} is {getattr(self, name)}: it must be at least 1")
        if self.flops <= 0:
            raise UserError(f"FLOPS is {self.flops}: it must be positive")
        if not 0 <= self.warmup_fraction <= 1:
            raise UserError(f"WARMUP_FRACTION is {self.warmup_fraction}: it must be from 0 to 1")
        _check_fractions(self.fractions)
        for macro, entries, taken in (
            ("VARIANTS", self.variants, _TAKEN),
            ("TASKS", self.tasks, _TAKEN_BY_PRETRAINING),
        ):
            _check_names(macro, [one.name for one in named(macro, entries)], taken)
        self.shared_by("PRETRAINING")
        self.shared_by("FINETUNING")

    def shared_by(self, macro: str) -> Named:
        """The files and bindings of PRETRAINING or FINETUNING, under that name."""
        overrides = self.pretraining if macro == "PRETRAINING" else self.finetuning
        if isinstance(overrides, str) or not all(isinstance(one, str) for one in overrides):
            raise UserError(f"{macro} is {overrides!r}: it must be a list of Gin files and bindings, each in quotes")
        return _named(macro, macro, overrides)

    @property
    def seeds(self) -> range:
        """Of the fine-tunings."""
        return range(self.seed, self.seed + self.num_seeds)


def _check_fractions(fractions: Sequence[float]) -> None:
    numbers = isinstance(fractions, Sequence) and all(isinstance(one, int | float) for one in fractions)
    if not numbers or not fractions:
        raise UserError(f"FRACTIONS is {fractions!r}: it must be a list of numbers, as in (0.25, 0.5, 1.0)")
    outside = [one for one in fractions if not 0 < one <= 1]
    if outside:
        raise UserError(f"FRACTIONS has {outside[0]:g}: a fraction of the budget is above 0 and at most 1")
    if list(fractions) != sorted(set(fractions)):
        raise UserError(f"FRACTIONS is {tuple(fractions)}: it must rise, as in (0.25, 0.5, 1.0)")


def _check_names(macro: str, names: Sequence[str], taken: Collection[str]) -> None:
    """Every name is its own folder."""
    if not names:
        raise UserError(f"{macro} is empty: name at least one")
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
            raise UserError(
                f"{macro} names {name!r}, which also names a folder: use letters, digits and any of _ . + - only"
            )
        if name in taken:
            raise UserError(f"{macro} names {name!r}, which electra compare keeps for itself: use another name")
        if names.count(name) > 1:
            raise UserError(f"{macro} names {name!r} twice: give each its own name")


def named(macro: str, entries: Sequence[str | Sequence[str]]) -> list[Named]:
    """The entries of VARIANTS or TASKS.

    Raises:
        UserError: one is not a name with its overrides.
    """
    if isinstance(entries, str) or not isinstance(entries, Sequence):
        raise UserError(f"{macro} is {entries!r}: it must be a list, as in [('name', 'NAME = VALUE'), ...]")
    found = []
    for entry in entries:
        parts = (entry,) if isinstance(entry, str) else entry
        if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, str) for part in parts):
            raise UserError(
                f"{macro} has {entry!r}: an entry is a name and its overrides, each in quotes, as in "
                "('mlm', 'gin/objectives/mlm.gin', 'DROPOUT = 0.0')"
            )
        found.append(_named(macro, parts[0], parts[1:]))
    return found


def _named(macro: str, name: str, overrides: Sequence[str]) -> Named:
    files = [one for one in overrides if one.endswith(".gin") and "=" not in one]
    bindings = [one for one in overrides if one not in files]
    for binding in bindings:
        target, equals, value = (part.strip() for part in binding.partition("="))
        if not (target and equals and value):
            raise UserError(f"{macro} has {binding!r}: an override is a Gin file or NAME = VALUE")
    pairs = (binding.partition("=") for binding in bindings)
    return Named(name, tuple(files), tuple(f"{key.strip()}={value.strip()}" for key, _, value in pairs))


def steps_of(variant: str, *, flops: float, fractions: Sequence[float], step_flops: int) -> list[int]:
    """Steps at each fraction of a budget, each the nearest whole number; the budget's own are those of fraction 1.

    Raises:
        UserError: a fraction is less than a step, or no more steps than the one before.
    """
    total = round(flops / step_flops)
    steps = [round(fraction * total) for fraction in fractions]
    if steps[0] < 1:
        raise UserError(
            f"FLOPS {flops:.4g} makes less than one step of {variant!r} at the fraction {fractions[0]:g} (a step is "
            f"{step_flops:.4g} FLOPs): set FLOPS to {step_flops / fractions[0]:.4g} at least, or leave the fraction out"
        )
    for (low, first), (high, second) in itertools.pairwise(zip(fractions, steps, strict=True)):
        if first == second:
            raise UserError(
                f"the fractions {low:g} and {high:g} of FLOPS {flops:.4g} are both step {first} of {variant!r}: leave "
                "one out, or raise FLOPS"
            )
    return steps


@dataclasses.dataclass(frozen=True)
class Piece:
    """One process: a pre-training up to a fraction of the budget, or the fine-tuning of a checkpoint on a task.

    Attributes:
        name: its directory below the comparison's; with .json its record and with .log what it said.
        variant: or `RANDOM`.
        fraction: of the budget; 0 for random weights.
        task: None for a pre-training.
        arguments: of `electra`, verb first.
        settings: what Gin resolved for it, as text, but for what cannot change its result.
        steps: updates that the weights have had in all.
        flops: of those.
        needs: the piece that must be done before.
    """

    name: str
    variant: str
    fraction: float
    task: str | None
    arguments: tuple[str, ...]
    settings: Mapping[str, str]
    steps: int
    flops: float
    needs: str | None


def different_settings(held: Mapping[str, str], asked: Mapping[str, str]) -> list[str]:
    """In words, the settings that two records both have and that differ.

    One that only one of them has came or went with a version of the code: every setting has a value, none a hidden
    default, so that another choice shows in a setting that both have.
    """
    return [
        f"{name} {held[name]} there, {asked[name]} here"
        for name in sorted(held.keys() & asked.keys())
        if held[name] != asked[name]
    ]


def check_tasks(names: Mapping[str, str], known: Collection[str], registered: Collection[str]) -> None:
    """Refuses a task that is neither known nor registered.

    Args:
        names: the task of each entry of TASKS.
        known: names of the catalogue.
        registered: names of SeqIO's registry.

    Raises:
        UserError: names the nearest.
    """
    for name in names.values():
        if name not in known and name not in registered:
            near = difflib.get_close_matches(name.lower().replace("-", ""), known, n=3) or sorted(known)
            raise UserError(f"TASKS names {name!r}, and there is no such task; the nearest: {', '.join(near)}")


def ready(pieces: Sequence[Piece], *, done: Collection[str], begun: Collection[str]) -> list[Piece]:
    """The pieces that can be begun, in order: not yet begun or done, and what they need is done."""
    return [
        piece
        for piece in pieces
        if piece.name not in done and piece.name not in begun and (piece.needs is None or piece.needs in done)
    ]


def seconds_left(
    pieces: Sequence[Piece], seconds: Mapping[str, float], running: Mapping[str, float], *, processes: int
) -> float | None:
    """How long what is left takes.

    Of pre-training each FLOP takes as long as it took the same variant, or the others if it has not had any;
    a fine-tuning takes as long as others on its task, or on any task.

    Args:
        pieces: all of them.
        seconds: what each that is done took.
        running: what each that is not done has taken so far.
        processes: side by side.

    Returns:
        None where nothing like it has been done.
    """
    own = own_flops(pieces)
    left = []
    for piece in pieces:
        if piece.name in seconds:
            continue
        same_kind = [one for one in pieces if one.name in seconds and (one.task is None) == (piece.task is None)]
        name = "variant" if piece.task is None else "task"
        alike = [one for one in same_kind if getattr(one, name) == getattr(piece, name)] or same_kind
        if not alike:
            return None
        taken = sum(seconds[one.name] for one in alike)
        whole = taken / sum(own[one.name] for one in alike) * own[piece.name]
        left.append(max(0.0, whole - running.get(piece.name, 0.0)))
    return max([sum(left) / processes, *left], default=0.0)


def own_flops(pieces: Sequence[Piece]) -> dict[str, float]:
    """The work of each piece itself: a pre-training goes on from the fraction before; a fine-tuning counts as 1."""
    by_name = {piece.name: piece for piece in pieces}
    return {
        piece.name: 1.0 if piece.task is not None else piece.flops - (by_name[piece.needs].flops if piece.needs else 0)
        for piece in pieces
    }
