"""A run's health as it is watched: real tiny runs, broken on purpose; warnings, once; what the page shows."""

import dataclasses
import functools
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.core import meta

from electra_jax.monitoring.epochs import epoch_columns
from electra_jax.monitoring.health_checks import Finding, Setting
from electra_jax.monitoring.metrics_file import read_rows
from electra_jax.monitoring.reporter import COLUMNS, RunReporter
from electra_jax.monitoring.watch import Watched
from electra_jax.pretraining.metrics import finish
from electra_jax.pretraining.steps import init_state, pretrain_step
from electra_jax.reports.charts import Series
from electra_jax.reports.health import published_series
from electra_jax.reports.page import plain
from electra_jax.reports.pretraining import write_report
from electra_jax.tasks.pretraining.cached_blocks import blocks_of_cache
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.state import Batch, Sums, TrainState
from support.command_line import SMALL as SMALL_RUN
from support.command_line import electra, small_run, write_small_text
from support.healthy_runs import GOOD, LIKE_PUBLISHED, PUBLISHED, SMALL, Row, names_on_the_way, published_rows, rows
from support.pages import Page
from support.tiny_model import CLS, MASK, MASKING, OBJECTIVE, SEP, VOCAB_SIZE, optimizer_config, small_model


class Recorder:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.reported: list[int] = []
        self.warned: list[tuple[str, int]] = []

    def report(self, step: int, split: str, values: dict[str, float]) -> None:
        self.reported.append(step)

    def warn(self, finding: Finding) -> None:
        self.warned.append((finding.name, finding.step))


def test_a_warning_comes_once_also_after_a_stop() -> None:
    lines = rows([{}, *[{"generator_repetition": 0.98}] * 6])
    values = [{k: v for k, v in line.items() if k not in ("step", "split")} for line in lines]
    recorder = Recorder()
    watched = Watched(recorder, SMALL, [], None)
    for line, numbers in zip(lines[:5], values[:5], strict=True):
        watched.report(line["step"], "train", numbers)
    assert recorder.warned == [("generator_one_token", 300)]
    again = Watched(
        recorder, SMALL, [*lines[:5], {"step": 300, "split": "health", "finding": "generator_one_token"}], None
    )
    for line, numbers in zip(lines[5:], values[5:], strict=True):
        again.report(line["step"], "train", numbers)
    assert len(recorder.warned) == 1
    assert recorder.reported == [line["step"] for line in lines]


def test_epochs_are_in_every_line_those_of_a_mixture_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[Row] = []
    for number, epochs in enumerate((lambda step: [step / 8], lambda step: [step / 8, step / 64], None)):
        columns = epoch_columns(len(epochs(0))) if epochs else COLUMNS
        directory = tmp_path / str(number)
        directory.mkdir()
        reporter = RunReporter(directory, start_step=0, num_train_steps=100, columns=columns)
        for split in ("train", "validation"):
            Watched(reporter, SMALL, [], epochs).report(50, split, {"generator_loss": 4.5})
        reporter.close()
        lines += read_rows(directory / "metrics.jsonl")
    one = {"epoch": 6.25}
    two = {"epoch": 6.25, "epoch_1": 6.25, "epoch_2": 0.78125}
    assert [{name: line[name] for name in line if name.startswith("epoch")} for line in lines] == [
        one,
        one,
        two,
        two,
        {},
        {},
    ]
    said = [line.partition(" | ")[2].partition(" | left")[0] for line in capsys.readouterr().out.splitlines()]
    parts = "epoch of part 1 6.25 | epoch of part 2 0.78"
    expected = ["epoch 6.25 | gen loss 4.500", f"{parts} | gen loss 4.500", "gen loss 4.500"]
    assert said[::2] == said[1::2] == expected


def test_the_published_line_is_drawn_as_far_as_the_run_goes() -> None:
    (line,) = published_series(
        "discriminator_auc", dataclasses.replace(LIKE_PUBLISHED, batch_size=256), PUBLISHED, 50_000
    )
    assert isinstance(line, Series)
    assert line.points[0] == pytest.approx((10_000, 0.856))
    assert line.points[-1] == pytest.approx((50_000, 0.889))
    assert published_series("discriminator_auc", LIKE_PUBLISHED, PUBLISHED, 19_000) == []
    assert published_series("discriminator_recall", LIKE_PUBLISHED, PUBLISHED, 50_000) == []
    assert published_series("discriminator_auc", SMALL, PUBLISHED, 50_000) == []


def test_a_report_of_a_run_like_the_published_one_stands_beside_it(tmp_path: Path) -> None:
    lines = published_rows()[:120]
    earlier = {"step": 500, "split": "health", "finding": "generator_scale", "words": "It <was> large."}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, earlier]))
    evaluation = {"step": lines[-1]["step"], "metrics": GOOD, "passages": []}
    setting = {"setting": dataclasses.asdict(LIKE_PUBLISHED)}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation | setting))
    html = Path(write_report(str(tmp_path))).read_text("utf-8")
    text = Page(html).text
    assert "Nothing unusual." in text
    assert "Warned about at step 500, and no longer the case: It <was> large." in text
    assert "The AUC first spikes, and dips as the generator improves; then it climbs" in text
    assert "published, step 180,000" not in text  # the last line is of step 195,000
    assert "published, step 195,000" in text
    # Generator loss, discriminator loss, AUC and generator accuracy; the last has one point before that step: none.
    assert html.count('class="line published"') == 3 + 1  # and the key


# Real runs, tiny. Everything that is broken on purpose is an argument of one compiled update.

LENGTH, ROWS, TOPICS, WORDS = 32, 64, 4, 12


def topics(seed: int) -> Batch:
    """Texts that each draw their words from one topic of four, so that the others tell what may stand in a gap."""
    draw = np.random.default_rng(seed)
    topic_B1 = draw.integers(0, TOPICS, (ROWS, 1))
    ids = (MASK + 1 + WORDS * topic_B1 + draw.integers(0, WORDS, (ROWS, LENGTH))).astype(np.int32)
    ids[:, 0], ids[:, -1] = CLS, SEP
    return {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": np.ones_like(ids)}


@jax.jit
def start(key: jax.Array) -> TrainState:
    return meta.unbox(init_state(key, small_model(), make_optimizer(optimizer_config()), LENGTH))


@functools.partial(jax.jit, donate_argnums=0, static_argnums=4)
def update(
    state: TrainState, batch: Batch, learning_rate: float, disc_weight: float, temperature: float
) -> tuple[TrainState, Sums]:
    config = optimizer_config(learning_rate=learning_rate, num_warmup_steps=10, num_train_steps=10_000)
    return pretrain_step(
        state,
        batch,
        model=small_model(),
        objective=dataclasses.replace(OBJECTIVE, disc_weight=disc_weight, temperature=temperature),
        masking=MASKING,
        optimizer=make_optimizer(config),
        accumulation_steps=1,
    )


def trained(
    *,
    steps: int,
    learning_rate: float = 5e-3,
    disc_weight: float = 50.0,
    temperature: float = 3.0,
    embeddings: float = 30.0,
) -> list[Row]:
    """The lines of real steps of 2,048 tokens; the embeddings begin so many times as large as they would."""
    state = start(jax.random.key(0))
    state.params["embeddings"]["word_embeddings"] *= embeddings
    lines = []
    for step in range(1, steps + 1):
        state, sums = update(state, topics(step), learning_rate, disc_weight, temperature)
        values = finish(jax.device_get(sums), {"generator": 1.0, "discriminator": disc_weight})
        speed = {"tokens_per_second": float(sums["real"]), "seconds": 1.0, "learning_rate": learning_rate}
        lines.append({"step": step, "split": "train", **values, **speed})
    return lines


TOPICAL = Setting(VOCAB_SIZE, ROWS, generator_learns=True, judges_every_token=True, differences=("everything",))


def test_a_good_tiny_run_is_healthy_at_every_moment() -> None:
    lines = trained(steps=120)
    assert lines[-1]["discriminator_auc"] > 0.7
    assert names_on_the_way(lines, TOPICAL) == set()


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        ({"disc_weight": 0.0}, "discriminator_untaught"),
        ({"learning_rate": 1.0}, "generator_scale"),
        ({"temperature": 0.01}, "generator_one_token"),
        ({"embeddings": 300.0}, "generator_scale"),
    ],
)
def test_a_run_broken_on_purpose_is_found_out(broken: dict[str, float], name: str) -> None:
    assert name in names_on_the_way(trained(steps=60, **broken), TOPICAL)


def test_the_warning_reaches_the_terminal_the_metrics_and_the_page(tmp_path: Path) -> None:
    """One run of `electra pretrain` whose discriminator is given no weight."""
    write_small_text(tmp_path)
    macros = {"TRAIN_STEPS": 40, "BATCH_SIZE": 64, "LEARNING_RATE": 2e-2, "LOG_EVERY": 2, "EVALUATE_EVERY": 40}
    broken = {"SAVE_EVERY": 40, "pretraining.ReplacedTokenDetection.disc_weight": 0.0}
    model_dir = tmp_path / "broken"
    done = electra(small_run(tmp_path, model_dir, **macros, **broken), tmp_path / "cache")
    assert done.returncode == 0, done
    said = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert [line.partition(":")[2].partition(":")[0].strip() for line in said] == ["The discriminator is not learning"]
    assert "Usual cause: a disc_weight of 0" in said[0]
    assert "What to try: check disc_weight" in said[0]
    lines = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["finding"] for line in lines if line["split"] == "health"] == ["discriminator_untaught"]
    (cache,) = (mark.parent for mark in (tmp_path / "caches").glob("*/COMPLETED"))
    num_examples = len(blocks_of_cache(str(cache), "train", vocab_size=SMALL_RUN["VOCAB_SIZE"]))
    counted = [line for line in lines if line["split"] != "health"]
    assert [line["epoch"] for line in counted] == [64 * line["step"] / num_examples for line in counted]
    logged = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    assert len(logged) == len(counted)
    for text, line in zip(logged, counted, strict=True):
        assert text.startswith(f"step {line['step']}/40 {line['split']} | epoch {line['epoch']:.2f} | gen loss ")
    setting = json.loads((model_dir / "run.json").read_text())["setting"]
    evaluation = {"step": 40, "metrics": lines[-1], "passages": [], "setting": setting}
    (model_dir / "evaluation.json").write_text(json.dumps(evaluation))
    text = Page(Path(write_report(str(model_dir))).read_text("utf-8")).text
    assert "Something is unusual." in text
    assert "The discriminator is not learning" in text
    assert re.search(rf"\bepoch ?{re.escape(plain(counted[-1]['epoch']))}", text)
    assert "(the generator, the model's size, the vocabulary's size, the length)" in text
