"""`electra compare` killed, stopped, failing and finished: nothing is done twice, and every number is the undisturbed.

One story, told by the installed command: the undisturbed run of conftest.py as a variant, at two fractions, one task.
"""

import json
import random
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

from electra_jax.compare.records import parameters_sha256
from support.command_line import MODERN, SMALL, STEPS, WORDS, finish, reported_steps, signal_when, start
from support.pages import Page

TRAIN_STEPS = STEPS["TRAIN_STEPS"]
# By hand, as in tests/compare/test_plan.py: 8 x 32 tokens, of which 32 are masked, and 85 words.
ENCODER = 2 * 8 * 32 * (2 * (4 * 16 * 16 + 2 * 16 * 32 + 2 * 32 * 16) + 16 * 16 + 16)
GENERATOR = 2 * 8 * 32 * (2 * (4 * 4 * 4 + 2 * 4 * 16 + 2 * 32 * 4) + 16 * 4) + 2 * 32 * 16 * (4 + 85)
STEP_FLOPS = 3 * (ENCODER + GENERATOR)
STAGES = ["electra/0.5/pretrain", "electra/1/pretrain"]
TUNED = ["electra/0.5/mine", "electra/1/mine"]
TRUNKS = ("trunk", "pretrain", "mine")


class Ended(NamedTuple):
    """A start of the comparison that has ended."""

    code: int
    out: str
    err: str
    done: dict[str, str]
    seconds: dict[str, int]

    @property
    def begun(self) -> list[str]:
        return re.findall(r"^begun: (\S+)", self.out, re.MULTILINE)


class Comparison:
    """A folder with a text, a task whose training file is not there yet, and what every start said."""

    def __init__(self, place: Path, folder: Path) -> None:
        self.place, self.folder, self.run = place, folder, folder / "run"
        self.starts: list[Ended] = []

    def command(self) -> list[str]:
        places = {"CACHE_DIR": str(self.place / "caches")}
        pretraining = SMALL | STEPS | places
        warmup = pretraining.pop("WARMUP_STEPS") / pretraining.pop("TRAIN_STEPS")
        finetuning = {"BUCKETS": (32,), "MAX_SEQ_LENGTH": 32, "BATCH_SIZE": 16, "EPOCHS": 8, "LEARNING_RATE": 3e-3}
        finetuning |= {"DROPOUT": 0.0, "LAYERWISE_LR_DECAY": 1.0, "TEXT_COLUMN": "text", "LABEL_COLUMN": "label"}
        macros = {
            "MODEL_DIR": str(self.run),
            "CORPUS": str(self.place / "text.txt"),
            "VOCAB_FILE": str(self.place / "vocab.txt"),
            "FLOPS": float(TRAIN_STEPS * STEP_FLOPS),
            "FRACTIONS": (0.5, 1.0),
            "VARIANTS": [("electra", "gin/objectives/electra.gin")],
            "TASKS": [("mine", "TASK = 'classification'", f"TRAIN_FILE = {str(self.folder / 'late.tsv')!r}")],
            "NUM_SEEDS": 1,
            "WARMUP_FRACTION": warmup,
            "RANDOM_BASELINE": False,
            "PRETRAINING": ("gin/models/tiny.gin", "gin/runs/pretrain.gin", *_bindings(pretraining)),
            "FINETUNING": _bindings(finetuning),
        }
        return ["compare", *(f"--gin.{binding}" for binding in _bindings(macros))]

    def start(self, arguments: list[str] | None = None) -> subprocess.Popen[str]:
        """The comparison, or another verb, running."""
        return start(arguments or self.command(), self.place / "cache")

    def end(self, process: subprocess.Popen[str]) -> None:
        """Keeps what it said, and what was done then: each record, and when its file was written."""
        done = finish(process)
        records = sorted(path for path in self.run.rglob("*.json") if path.with_suffix("").is_dir())
        records = [path for path in records if path.with_suffix(".log").exists()]
        names = [str(path.relative_to(self.run).with_suffix("")) for path in records]
        self.starts.append(
            Ended(
                done.returncode,
                done.stdout,
                done.stderr,
                dict(zip(names, (path.read_text() for path in records), strict=True)),
                dict(zip(names, (path.stat().st_mtime_ns for path in records), strict=True)),
            )
        )

    def log(self, piece: str) -> str:
        return (self.run / f"{piece}.log").read_text()


def _bindings(macros: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{name}={value!r}" for name, value in macros.items())


@pytest.fixture(scope="module")
def story(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Killed in the first pre-training, stopped in the second, failed at the task, and finished once its file came."""
    told = Comparison(place, tmp_path_factory.mktemp("compare"))
    process = told.start()
    signal_when(process, signal.SIGKILL, lambda: len(reported_steps(told.run / STAGES[0])) > 6)
    told.end(process)
    process = told.start()
    signal_when(process, signal.SIGTERM, lambda: len(reported_steps(told.run / STAGES[1])) > TRAIN_STEPS // 2 + 5)
    told.end(process)
    told.end(told.start())
    draw = random.Random(1)
    rows = [(" ".join(draw.choices(WORDS[:25] if label else WORDS[25:50], k=6)), label) for label in [0, 1] * 40]
    (told.folder / "late.tsv").write_text("".join(["text\tlabel\n", *(f"{text}\t{label}\n" for text, label in rows)]))
    told.end(told.start())
    return told


def test_a_killed_comparison_stops_what_it_had_begun(story: Comparison) -> None:
    killed, stopped, *_ = story.starts
    assert killed.code == -signal.SIGKILL
    assert killed.begun == [STAGES[0]]
    assert killed.done == {}
    # The process that trained was told by the system, saved, and was gone on with.
    said = re.findall(r"stopped by SIGTERM at step (\d+), saved|resuming from step (\d+)", story.log(STAGES[0]))
    assert len(said) == 2, story.log(STAGES[0])
    assert 6 < int(said[0][0]) == int(said[1][1]) <= TRAIN_STEPS // 2
    assert stopped.begun[0] == STAGES[0]
    assert reported_steps(story.run / STAGES[0]) == list(range(1, TRAIN_STEPS // 2 + 1))


def test_asked_to_stop_it_saves_and_says_so(story: Comparison) -> None:
    _, stopped, *_ = story.starts
    assert stopped.code == 75
    assert stopped.begun == [STAGES[0], TUNED[0], STAGES[1]]
    assert list(stopped.done) == [STAGES[0]]
    assert re.search(rf"^stopped: {STAGES[1]} ", stopped.out, re.MULTILINE)
    assert stopped.out.splitlines()[-1] == (
        "stopped by SIGTERM with 1 of 4 pieces done, saved: the same command resumes from there"
    )


def test_what_fails_is_named_and_the_others_go_on(story: Comparison) -> None:
    *_, failed, _ = story.starts
    assert failed.code == 2
    assert failed.begun == [TUNED[0], STAGES[1], TUNED[1]]
    assert list(failed.done) == STAGES
    (sentence,) = failed.err.splitlines()
    assert sentence.startswith(f"electra: {TUNED[0]} ended with exit code 2; its last words: electra: ")
    assert "late.tsv" in sentence
    assert f"all of them are in {story.run / TUNED[0]}.log; 1 more failed: {TUNED[1]}; the same command" in sentence
    assert "Traceback" not in failed.out + failed.err


def test_only_what_failed_is_tried_again(story: Comparison) -> None:
    *_, failed, finished = story.starts
    assert finished.code == 0, finished
    assert finished.begun == TUNED
    assert sorted(finished.done) == sorted([*STAGES, *TUNED])
    assert {name: finished.seconds[name] for name in STAGES} == failed.seconds
    assert "4 of 4 pieces done, left: 0:00:00" in finished.out


def test_the_results_of_all_starts(story: Comparison) -> None:
    text = (story.run / "comparison.json").read_text()
    found = json.loads(text)
    assert found["pieces"] == {"done": 4, "all": 4, "failed": {}}
    assert [(one["fraction"], one["steps"]) for one in found["scores"]] == [(0.5, TRAIN_STEPS // 2), (1.0, TRAIN_STEPS)]
    assert found["variants"]["electra"]["step_flops"] == STEP_FLOPS
    assert [one["flops"] for one in found["checkpoints"]] == [TRAIN_STEPS // 2 * STEP_FLOPS, TRAIN_STEPS * STEP_FLOPS]
    assert [one["held_out"]["step"] for one in found["checkpoints"]] == [TRAIN_STEPS // 2, TRAIN_STEPS]
    assert str(story.folder) not in text
    assert str(story.place) not in text
    assert "Complete." in Page((story.run / "report.html").read_text()).text
    assert ElementTree.parse(story.run / "comparison.svg").getroot().tag.endswith("}svg")
    # The second stage goes on with the first.
    assert f"resuming from step {TRAIN_STEPS // 2} of" in story.log(STAGES[1])


def test_weights_are_those_of_a_run_that_nothing_disturbed(story: Comparison, whole: Path) -> None:
    """The whole budget in one pre-training from beginning to end: bit for bit."""
    assert reported_steps(whole) == list(range(1, TRAIN_STEPS + 1))
    checkpoints = json.loads((story.run / "comparison.json").read_text())["checkpoints"]
    assert checkpoints[1]["parameters_sha256"] == parameters_sha256(whole)
    assert checkpoints[0]["parameters_sha256"] != parameters_sha256(whole)


@pytest.mark.long
def test_scores_are_those_of_a_run_that_nothing_disturbed(story: Comparison, whole: Path) -> None:
    """The command of the last fine-tuning, on the undisturbed weights."""
    verb, *flags = shlex.split(json.loads(story.starts[-1].done[TUNED[1]])["command"])[1:]
    for old, new in {story.run / TUNED[1]: story.folder / "tuned", story.run / STAGES[1]: whole}.items():
        flags = [flag.replace(f"'{old}'", f"'{new}'") for flag in flags]
    done = finish(story.start([verb, *flags]))
    assert done.returncode == 0, done
    assert f"weights from {whole}" in done.stdout
    results = json.loads((story.folder / "tuned/results.json").read_text())
    assert results["seeds"] == json.loads((story.run / TUNED[1] / "results.json").read_text())["seeds"]
    found = json.loads((story.run / "comparison.json").read_text())["scores"][1]
    assert found["by_seed"] == {"0": results["seeds"][0]["metrics"][found["metric"]]}


def test_blocks_optimizers_and_phases_are_variants(place: Path, tmp_path: Path) -> None:
    """Each arm takes the same FLOPs by its own count, whatever its steps cost."""
    comparison = Comparison(place, tmp_path)
    blocks = _bindings(MODERN)
    changing = {"BATCH_SIZE_WARMUP": ((0.5, 4),), "SEQUENCE_LENGTH_WARMUP": ((0.5, 16),)}
    changing |= {"MASK_PROB": ((0.0, 0.3), (1.0, 0.15))}
    variants = [
        ("modern_first", *blocks, "gin/recipes/generator_first.gin"),
        ("muon_changing", "gin/optimizers/muon.gin", *_bindings(changing)),
    ]
    macros = {"VARIANTS": variants, "FRACTIONS": (1.0,), "FLOPS": 12.0 * STEP_FLOPS}
    (tmp_path / "late.tsv").write_text("text\tlabel\n" + "".join(f"{word}\t{i % 2}\n" for i, word in enumerate(WORDS)))
    comparison.end(comparison.start([*comparison.command(), *(f"--gin.{line}" for line in _bindings(macros))]))
    (ended,) = comparison.starts
    assert ended.code == 0, ended
    assert sorted(ended.done) == sorted(f"{name}/1/{item}" for name, *_ in variants for item in ("pretrain", "mine"))
    first, changing = (json.loads(ended.done[f"{name}/1/pretrain"]) for name, *_ in variants)
    # Half of the steps of the second cost about a quarter; steps are whole.
    assert changing["steps"] > 1.5 * first["steps"]
    for record in (first, changing):
        assert record["flops"] == pytest.approx(12 * STEP_FLOPS, rel=0.1)


def test_tuned_arms_with_a_cool_down_and_two_pre_trainings(place: Path, tmp_path: Path) -> None:
    """The shape of a whole experiment: trials, then a trunk and its branch with each seed, and who is ahead."""
    comparison = Comparison(place, tmp_path)
    macros = {"FRACTIONS": (1.0,), "FLOPS": 20.0 * STEP_FLOPS, "WARMUP_FRACTION": 0.1, "PRETRAINING_SEEDS": 2}
    macros |= {"TUNE": ((3e-3,), (0.1,)), "TUNE_SHARE": 0.25, "COOL_DOWN": 0.2, "PROCESSES": 2}
    (tmp_path / "late.tsv").write_text("text\tlabel\n" + "".join(f"{word}\t{i % 2}\n" for i, word in enumerate(WORDS)))
    command = [*comparison.command(), *(f"--gin.{line}" for line in _bindings(macros))]
    comparison.end(comparison.start(command))
    (ended,) = comparison.starts
    assert ended.code == 0, ended
    trial = ["electra/tune/0.003-0.1/pretrain", "electra/tune/0.003-0.1/mine"]
    folders = ["electra/1", "electra/1-seed1"]
    assert ended.begun[:2] == trial
    assert sorted(ended.done) == sorted([*trial, *(f"{one}/{item}" for one in folders for item in TRUNKS)])
    found = json.loads((comparison.run / "comparison.json").read_text())
    assert found["tuning"]["electra"]["chosen"] == {"learning_rate": 3e-3, "warmup": 0.1, "at_the_edge": False}
    assert found["spent_flops"]["electra"] == {"tuning": 5.0 * STEP_FLOPS, "pretraining": 40.0 * STEP_FLOPS}
    assert [(one["role"], one["pretraining_seed"], one["steps"]) for one in found["checkpoints"]] == [
        (role, seed, steps) for seed in (0, 1) for role, steps in (("trunk", 16), ("compared", 20))
    ]
    assert len({one["parameters_sha256"] for one in found["checkpoints"]}) == 4
    (cell,) = found["cells"]
    assert (cell["n"], list(cell["by_seed"])) == (2, ["0", "1"])
    assert found["ahead"] == {"1": {"electra": []}}
    for folder in folders:
        assert "resuming from step 16 of" in comparison.log(f"{folder}/pretrain")
    page = Page((comparison.run / "report.html").read_text()).text
    assert "mean ± standard deviation over 2 pre-trainings" in page
    assert "the last checkpoint" in page
    # Nothing is left to do.
    comparison.end(comparison.start(command))
    assert (comparison.starts[-1].code, comparison.starts[-1].begun) == (0, [])
    assert "8 of 8 pieces are done" in comparison.starts[-1].out
