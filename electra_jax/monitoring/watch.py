"""Monitor the health of a run while it trains, and warn of each finding as it appears."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import jax

from electra_jax.config.pretraining import PretrainingRun
from electra_jax.distributed import processes
from electra_jax.files import path_of
from electra_jax.model.types import PyTree
from electra_jax.monitoring.epochs import Epochs, epoch_columns, epoch_metrics
from electra_jax.monitoring.health import diagnose
from electra_jax.monitoring.health_checks import Finding, Setting
from electra_jax.monitoring.history import history_of
from electra_jax.monitoring.metrics_file import read_rows
from electra_jax.monitoring.published_curve import published_curve, shipped_curve
from electra_jax.monitoring.reporter import COLUMNS, NullReporter, RunReporter, closing_after
from electra_jax.pretraining.correction import CorrectedDetection
from electra_jax.pretraining.electric import TwoTowerDetection
from electra_jax.pretraining.replaced_token import ReplacedTokenDetection
from electra_jax.run_directory import METRICS
from electra_jax.training.meter import Reporter

logger = logging.getLogger(__name__)

# How far a vocabulary's size may be from the published one for losses to be comparable: 10 % is at most 0.1 nats.
_VOCABULARY_TOLERANCE = 0.1


def setting_of(run: PretrainingRun) -> Setting:
    """Return the part of a run's configuration that its health checks need."""
    objective = run.objective
    all_tokens = getattr(objective, "discriminate_at", "all") == "all"
    # Electric is a subclass of TwoTowerDetection whose loss means something else.
    detects = type(objective) in (ReplacedTokenDetection, CorrectedDetection, TwoTowerDetection)
    return Setting(
        vocab_size=run.encoder.vocab_size,
        batch_size=run.batch_size,
        generator_learns=run.generator_kind not in ("uniform", "none")
        and objective.loss_weights["generator"] > 0
        and not run.phases_config.ready,
        judges_every_token=detects and all_tokens,
        differences=differences(run),
    )


def describe_run(run: PretrainingRun, params: PyTree, *, corpus: str) -> dict[str, Any]:
    """Return the facts about a run that `run.json` and `evaluation.json` hold and reports show."""
    sizes = {name: sum(int(leaf.size) for leaf in jax.tree.leaves(tower)) for name, tower in params.items()}
    return {
        "parameters": sizes,
        "corpus": corpus,
        "vocab_file": run.cache.vocab_file,
        "setting": dataclasses.asdict(setting_of(run)),
    }


def differences(run: PretrainingRun) -> tuple[str, ...]:
    """Name the differences from the published run that make the two curves incomparable."""
    theirs, encoder = shipped_curve()["setting"], run.encoder
    shape = ("hidden_size", "embedding_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    objective = run.objective
    same = {
        "the objective": type(objective) is ReplacedTokenDetection
        and (objective.temperature, objective.disallow_correct, objective.discriminate_at) == (1.0, False, "all"),
        "the generator": run.generator_kind == "small" and run.generator.hidden_size * 4 == theirs["hidden_size"],
        "the model's size": all(getattr(encoder, name) == theirs[name] for name in shape),
        "the vocabulary's size": abs(encoder.vocab_size / theirs["vocab_size"] - 1) <= _VOCABULARY_TOLERANCE,
        "the length": run.cache.sequence_length == theirs["sequence_length"],
        "the share of masked tokens": run.mask_prob == theirs["mask_prob"],
    }
    return tuple(what for what, holds in same.items() if not holds)


class Warner(Protocol):
    """The interface of the reporter that `Watched` passes everything on to."""

    def report(self, step: int, split: str, values: dict[str, float]) -> None:
        """Report one line of metrics."""

    def warn(self, finding: Finding) -> None:
        """Show a finding, and record it in the run's files."""


class Watched:
    """A reporter that adds epochs to metrics, and warns once of each finding, even if the run is resumed."""

    def __init__(
        self, reporter: Warner, setting: Setting, rows: list[Mapping[str, Any]], epochs: Epochs | None
    ) -> None:
        """Read the history of a run.

        Args:
            reporter: the reporter that everything is passed on to.
            setting: the setting of the run.
            rows: the lines of the run's metrics.jsonl so far.
            epochs: returns the epochs that a number of updates make; None if they are unknown.
        """
        self._reporter = reporter
        self._setting = setting
        self._epochs = epochs
        self._published = published_curve()
        self._history = history_of(rows)
        self._warned = {row["finding"] for row in rows if row["split"] == "health"}

    def report(self, step: int, split: str, values: dict[str, float]) -> None:
        """Report one line of metrics, and warn of new findings."""
        if self._epochs:
            values = {**values, **epoch_metrics(self._epochs(step))}
        self._reporter.report(step, split, values)
        full = len(self._history.full)
        self._history = self._history.add({"step": step, "split": split, **values})
        # Between two full windows there is nothing new to see.
        if split == "train" and len(self._history.full) == full:
            return
        for finding in diagnose(self._history, self._setting, self._published):
            if finding.name not in self._warned:
                self._warned.add(finding.name)
                self._reporter.warn(finding)


@contextmanager
def open_reporter(configuration: PretrainingRun, start_step: int, epochs: Epochs | None) -> Iterator[Reporter]:
    """Open the leader's reporter, which also monitors the run's health; the other processes report nothing.

    Args:
        configuration: the configuration of the run.
        start_step: updates already done.
        epochs: returns the epochs that a number of updates make; None if they are unknown.
    """
    if not processes.leader():
        yield NullReporter()
        return
    model_dir = path_of(configuration.model_dir)
    columns = epoch_columns(len(epochs(start_step))) if epochs else COLUMNS
    last_step = configuration.loop.num_train_steps
    reporter = RunReporter(model_dir, start_step=start_step, num_train_steps=last_step, columns=columns)
    # By now the reporter has dropped the lines of steps that will run again.
    lines = read_rows(model_dir / METRICS)
    with closing_after(reporter):
        yield Watched(reporter, setting_of(configuration), lines, epochs)


def warn_of_warmup(configuration: PretrainingRun) -> None:
    """Warn if a run ends while its learning rate still rises, as a short trial of a long run's recipe does."""
    warmup, steps = configuration.optimizer.num_warmup_steps, configuration.loop.num_train_steps
    if warmup > steps:
        logger.warning(
            "the learning rate rises for %g steps, and the run has %d: it never reaches LEARNING_RATE; set "
            "WARMUP_STEPS to a tenth of TRAIN_STEPS, or less",
            warmup,
            steps,
        )
