"""A run that was killed, stopped or recorded gives the numbers of one that was left alone, bit for bit."""

import functools
import json
import random
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from support.command_line import (
    FILES,
    MODERN,
    STEPS,
    arrays,
    assert_same_arrays,
    checkpoint_steps,
    electra,
    finish,
    reported_steps,
    signal_when,
    small_run,
    start,
    unfinished_saves,
)

# The generator alone for 15 of 40 steps, then a discriminator that starts from it and learns from it.
PHASES = {
    "GENERATOR_FIRST": 0.3,
    "COPY_GENERATOR": True,
    "FREEZE_GENERATOR": True,
    "run_config.PretrainingRun.embedding_sharing": "nes",
    "run_config.PretrainingRun.generator_width_fraction": 1.0,
    "encoder.EncoderConfig.num_attention_heads": 1,
    "encoder.EncoderConfig.intermediate_size": 64,
    "pretraining.ReplacedTokenDetection.temperature": ((0.0, 2.0), (1.0, 1.0)),
}
# All that changes over the steps, and groups of the optimizer; the shape changes after 8 steps.
CHANGING = {
    "BATCH_SIZE": 16,
    "BATCH_SIZE_WARMUP": ((0.5, 8),),
    "SEQUENCE_LENGTH_WARMUP": ((0.5, 16),),
    "MASK_PROB": ((0.0, 0.3), (1.0, 0.15)),
    "GENERATOR_LEARNING_RATE": 1e-3,
    "GENERATOR_CLIP_NORM": 0.5,
    "optimizer.OptimizerConfig.rule": "muon",
    "TRAIN_STEPS": 16,
    "SAVE_EVERY": 3,
}
SPEED = ("examples_per_second", "tokens_per_second", "data_wait_share", "seconds")


class Runs:
    """Processes that share a text and compiled programs; each method is one story, told in its own MODEL_DIR."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, name: str, **changes: object) -> list[str]:
        return small_run(self.folder, self.folder / name, **STEPS | changes)

    def whole(self, name: str, *, devices: int = 1, **changes: object) -> Path:
        """To the end, however it began."""
        done = electra(self.command(name, **changes), self.folder / "cache", devices=devices)
        assert done.returncode == 0, done
        assert f"done: {(STEPS | changes)['TRAIN_STEPS']} steps" in done.stdout
        return self.folder / name

    def killed(self, name: str, moments: list[int | str], **changes: object) -> tuple[Path, list[list[str]]]:
        """Killed at each moment (during a save, or soon after so many more reported steps), then finished.

        Also what each kill left of a save.
        """
        model_dir, draw, left = self.folder / name, random.Random(name), []
        for moment in moments:
            process = start(self.command(name, **changes), self.folder / "cache")
            seen = len(reported_steps(model_dir))
            if moment == "save":
                # What the last kill left is cleaned up before new steps are reported.
                signal_when(process, signal.SIGKILL, functools.partial(_saves_after, model_dir, seen))
            else:
                progress = functools.partial(_reports_after, model_dir, seen + int(moment))
                signal_when(process, signal.SIGKILL, progress, draw.uniform(0, 0.1))
            assert finish(process).returncode == -signal.SIGKILL
            left.append(unfinished_saves(model_dir))
            print(f"killed ({moment}) after step {reported_steps(model_dir)[-1]}, unfinished: {left[-1]}", flush=True)
        return self.whole(name, **changes), left

    def phases(self) -> tuple[Path, Path]:
        """Killed in both phases of a run, and not at all."""
        killed, _ = self.killed("phases killed", [3, 20], **PHASES)
        return killed, self.whole("phases", **PHASES)

    def ready(self, generator: Path) -> tuple[Path, Path]:
        """Beside the generator of another run, which is not trained: killed, and not at all."""
        shared = {"INIT_FROM": str(generator), "FREEZE_GENERATOR": True, "TRAIN_STEPS": 12}
        changes = shared | {"run_config.PretrainingRun.embedding_sharing": "gdes"}
        killed, _ = self.killed("ready killed", [5], **changes)
        return killed, self.whole("ready", **changes)

    def stopped(self, name: str) -> tuple[Path, list[tuple[int, int, str]]]:
        """Asked to stop by SIGTERM, then by Ctrl-C, then finished: (exit code, newest checkpoint, output) of each."""
        model_dir, results = self.folder / name, []
        for number, wanted in ((signal.SIGTERM, 5), (signal.SIGINT, 20)):
            process = start(self.command(name), self.folder / "cache")
            signal_when(process, number, functools.partial(_reports_after, model_dir, wanted))
            done = finish(process)
            assert "Traceback" not in done.stderr, done
            results.append((done.returncode, checkpoint_steps(model_dir)[-1], done.stdout))
        return self.whole(name), results

    def moved(self, name: str) -> tuple[Path, int]:
        """Begun on eight devices, stopped, and finished on two; with the step it was stopped at."""
        model_dir = self.folder / name
        process = start(self.command(name, MESH_FSDP=4), self.folder / "cache", devices=8)
        signal_when(process, signal.SIGTERM, functools.partial(_reports_after, model_dir, 5))
        done = finish(process)
        assert "stopped by SIGTERM" in done.stdout, done
        stopped = checkpoint_steps(model_dir)[-1]
        done = electra(self.command(name, MESH_FSDP=2), self.folder / "cache", devices=2)
        assert f"resuming from step {stopped} " in done.stdout, done
        assert done.returncode == 0, done
        return model_dir, stopped

    def recorded(self, name: str, other: Path) -> Path:
        """From the configuration that another run wrote down."""
        arguments = ["pretrain", f"--gin_file={other / 'config.gin'}", f"--gin.MODEL_DIR={str(self.folder / name)!r}"]
        done = electra(arguments, self.folder / "cache")
        assert done.returncode == 0, done
        return self.folder / name


def _reports_after(model_dir: Path, seen: int) -> bool:
    return len(reported_steps(model_dir)) > seen


def _saves_after(model_dir: Path, seen: int) -> bool:
    return bool(unfinished_saves(model_dir)) and _reports_after(model_dir, seen)


@pytest.fixture(scope="module")
def stories(place: Path, whole: Path) -> Iterator[dict[str, Future]]:
    """All of them, two at a time: most of each is importing and tracing."""
    runs = Runs(place)
    with ThreadPoolExecutor(2) as pool:
        yield {
            "killed": pool.submit(runs.killed, "killed", ["save", 2, "save", 5]),
            "stopped": pool.submit(runs.stopped, "stopped"),
            "moved": pool.submit(runs.moved, "moved"),
            "recorded": pool.submit(runs.recorded, "recorded", whole),
            "modern": pool.submit(runs.whole, "modern", **MODERN),
            "modern killed": pool.submit(runs.killed, "modern killed", ["save", 3], **MODERN),
            "phases": pool.submit(runs.phases),
            "ready": pool.submit(runs.ready, whole),
        }


def _assert_same_run(model_dir: Path, other: Path) -> None:
    steps = STEPS["TRAIN_STEPS"]
    assert checkpoint_steps(model_dir) == checkpoint_steps(other) == [steps - STEPS["SAVE_EVERY"], steps]
    for step in checkpoint_steps(model_dir):
        assert_same_arrays(arrays(model_dir, step), arrays(other, step))
    assert reported_steps(model_dir) == list(range(1, steps + 1))
    assert reported_steps(model_dir, "validation") == [20, 40]
    assert _metrics(model_dir) == _metrics(other)


def _metrics(model_dir: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (model_dir / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in SPEED} for line in lines]


def test_killed_at_any_moment(stories: dict[str, Future], whole: Path) -> None:
    model_dir, left = stories["killed"].result()
    # Two of the kills really hit a save, and nothing of it is left.
    assert left[0], left
    assert left[2], left
    assert not unfinished_saves(model_dir)
    _assert_same_run(model_dir, whole)


def _assert_same_losses(model_dir: Path, other: Path) -> None:
    """But for the rounding of other devices."""
    for ours, theirs in zip(_metrics(model_dir), _metrics(other), strict=True):
        assert (ours["step"], ours["split"]) == (theirs["step"], theirs["split"])
        assert ours["generator_loss"] == pytest.approx(theirs["generator_loss"], rel=1e-5), ours["step"]


def test_modern_blocks_killed(stories: dict[str, Future]) -> None:
    model_dir, left = stories["modern killed"].result()
    assert left[0], left
    _assert_same_run(model_dir, stories["modern"].result())


def test_a_longer_context_after_modern_blocks(stories: dict[str, Future], place: Path) -> None:
    """The recipe at twice the length: every weight of the first stage is taken, and they are trained further."""
    first = stories["modern"].result()
    second = {"SEQUENCE_LENGTH": 64, "TRAIN_STEPS": 2, "BATCH_SIZE": 4, "INIT_FROM": str(first)}
    second |= {"encoder.EncoderConfig.max_position_embeddings": 64}
    command = small_run(place, place / "long context", **STEPS | MODERN | second)
    command.insert(command.index(FILES[-1]) + 1, "--gin_file=gin/recipes/long_context.gin")
    done = electra(command, place / "cache")
    assert done.returncode == 0, done
    before, after = arrays(first, STEPS["TRAIN_STEPS"]), arrays(place / "long context", 2)
    names = [name for name in before if name.startswith("params/")]
    assert sorted(names) == sorted(name for name in after if name.startswith("params/"))
    moved = [np.abs(after[name] - before[name]).max() for name in names]
    assert 0 < max(moved) < 0.01
    assert "global_rope_theta = 160000.0" in (place / "long context/config.gin").read_text()


def test_killed_in_every_phase(stories: dict[str, Future]) -> None:
    killed, undisturbed = stories["phases"].result()
    _assert_same_run(killed, undisturbed)
    lines = [line for line in _metrics(undisturbed) if line["split"] == "train"]
    assert [line["step"] for line in lines if "discriminator_loss" not in line] == list(range(1, 16))
    # The generator is what it was when the discriminator started from it.
    first, last = (arrays(undisturbed, step) for step in checkpoint_steps(undisturbed))
    tower = [name for name in first if name.startswith("params/generator/")]
    assert tower
    assert all(np.array_equal(first[name], last[name]) for name in tower)


def test_killed_beside_a_generator_that_is_ready(stories: dict[str, Future], whole: Path) -> None:
    killed, undisturbed = stories["ready"].result()
    there, ours = arrays(whole, STEPS["TRAIN_STEPS"]), arrays(undisturbed, 12)
    assert_same_arrays(arrays(killed, 12), ours)
    for name in (name for name in ours if name.startswith(("params/generator/", "params/embeddings/"))):
        np.testing.assert_array_equal(ours[name], there[name], err_msg=name)
    assert not [name for name in ours if name.startswith("opt_state") and "generator/" in name]


def test_killed_while_everything_changes(place: Path) -> None:
    """In the first of two stages, some steps before batches become larger and rows longer."""
    runs = Runs(place)
    undisturbed = runs.whole("changing", **CHANGING)
    model_dir, _ = runs.killed("changing killed", [6], **CHANGING)
    for step in checkpoint_steps(undisturbed):
        assert_same_arrays(arrays(model_dir, step), arrays(undisturbed, step))
    assert _metrics(model_dir) == _metrics(undisturbed)
    spread = runs.whole("changing on eight", devices=8, MESH_FSDP=2, **CHANGING)
    _assert_same_losses(spread, undisturbed)


@pytest.mark.long
def test_killed_at_twenty_random_moments(place: Path) -> None:
    # There is a save every four steps: the moments that are no save's fall just before one or just after one.
    draw = random.Random(20)
    moments = draw.sample(["save"] * 8 + [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6], 20)
    runs = Runs(place)
    long = {"TRAIN_STEPS": 400}
    undisturbed = runs.whole("long", **long)
    model_dir, left = runs.killed("long killed", moments, **long)
    assert sum(map(bool, left)) >= 5, left
    for step in checkpoint_steps(undisturbed):
        assert_same_arrays(arrays(model_dir, step), arrays(undisturbed, step))
    assert _metrics(model_dir) == _metrics(undisturbed)
    hit = sum(map(bool, left))
    print(f"{len(moments)} kills, {hit} of them during a save: bit-equal after {long['TRAIN_STEPS']} steps")


def test_stopped_by_a_signal(stories: dict[str, Future], whole: Path) -> None:
    model_dir, results = stories["stopped"].result()
    for (code, newest, output), name, wanted in zip(results, ("SIGTERM", "SIGINT"), (6, 21), strict=True):
        # The platform's request is to be followed by another start, a person's is not.
        assert code == (75 if name == "SIGTERM" else 0)
        assert newest >= wanted
        assert f"stopped by {name} at step {newest}, saved" in output
        assert "last start" not in output
    assert f"resuming from step {results[0][1]}" in results[1][2]
    # Where it was stopped there is one more checkpoint, the last two are the same.
    _assert_same_run(model_dir, whole)


def test_moved_to_another_number_of_devices(stories: dict[str, Future], whole: Path) -> None:
    """The numbers of one device, step by step, so that each batch was the next one; rounding adds up."""
    model_dir, stopped = stories["moved"].result()
    assert stopped < STEPS["TRAIN_STEPS"]
    _assert_same_losses(model_dir, whole)
    last, other = arrays(model_dir, STEPS["TRAIN_STEPS"]), arrays(whole, STEPS["TRAIN_STEPS"])
    assert last.keys() == other.keys()
    for name in (name for name in last if name.startswith("params/")):
        np.testing.assert_allclose(last[name], other[name], rtol=0, atol=1e-4, err_msg=name)


def test_the_recorded_configuration_reproduces_the_run(stories: dict[str, Future], whole: Path) -> None:
    _assert_same_run(stories["recorded"].result(), whole)


def test_the_mean_of_the_last_checkpoints_is_evaluated_and_exported(place: Path, whole: Path, tmp_path: Path) -> None:
    model_dir = tmp_path / "run"
    shutil.copytree(whole, model_dir)
    asked = f"--gin.MODEL_DIR={str(model_dir)!r}"
    results = {}
    for average in (1, 2):
        done = electra(["evaluate", asked, f"--average={average}"], place / "cache")
        assert done.returncode == 0, done
        results[average] = json.loads((model_dir / "evaluation.json").read_text())
    assert "mean of steps 40, 36" in done.stdout
    assert [results[average]["mean_of_steps"] for average in (1, 2)] == [[40], [40, 36]]
    losses = [results[average]["metrics"]["generator_loss"] for average in (1, 2)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    done = electra(["export", str(model_dir), str(tmp_path / "out"), "--format=transformers", "--average=2"], place)
    assert done.returncode == 0, done
    last, before = (arrays(whole, step)["params/embeddings/word_embeddings"] for step in (40, 36))
    folder = tmp_path / "out" / "discriminator"
    exported = load_file(folder / "model.safetensors")["electra.embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(exported, ((last.astype(np.float64) + before) / 2).astype(np.float32))
    assert "| mean of the checkpoints | 40, 36 |" in (folder / "README.md").read_text()


def test_what_a_resumed_run_changes_is_said_and_recorded(place: Path, whole: Path, tmp_path: Path) -> None:
    """The published schedule is over at step 40 of 40, and has an eleventh of the rate left at 40 of 44."""
    model_dir = tmp_path / "run"
    shutil.copytree(whole, model_dir)
    before = (whole / "config.gin").read_text()
    changes = STEPS | {"TRAIN_STEPS": 44, "LEARNING_RATE": 1e-3, "SAVE_EVERY": 2}
    done = electra(small_run(place, model_dir, **changes), place / "cache")
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    (changed,) = [line for line in lines if line.startswith("changed since the last start: ")]
    # A macro is named once, whatever it sets.
    assert sorted(changed.partition(": ")[2].split("; ")) == [
        "LEARNING_RATE 0.0005 -> 0.001",
        "SAVE_EVERY 4 -> 2",
        "TRAIN_STEPS 40 -> 44",
    ]
    assert "the learning rate of the next update goes from 0 to 9.091e-05" in lines
    assert (model_dir / "config.1.gin").read_text() == before
    recorded = (model_dir / "config.gin").read_text()
    assert "TRAIN_STEPS = 44" in recorded
    # Nothing is left to do, and nothing is recorded of it.
    done = electra(small_run(place, model_dir, **changes | {"SAVE_EVERY": 4}), place / "cache")
    assert "has had its 44 steps: nothing left to do" in done.stdout
    # A number of steps that is below what it has had is no number of further ones, and that is said.
    done = electra(small_run(place, model_dir, **changes | {"TRAIN_STEPS": 20}), place / "cache")
    assert "has had 44 steps, and TRAIN_STEPS is 20, which counts from its first one: nothing left to do" in done.stdout
    assert (
        "for 20 more, set TRAIN_STEPS to 64, or start again in another MODEL_DIR with --gin.INIT_FROM=" in done.stdout
    )
    assert (model_dir / "config.gin").read_text() == recorded
    assert not (model_dir / "config.2.gin").exists()
    assert len(json.loads((model_dir / "run.json").read_text())["starts"]) == 2


def test_nothing_is_lost_when_the_reader_of_the_output_goes(place: Path) -> None:
    """As `| head` does, in a run that holds nothing out and would have saved much later."""
    model_dir = place / "read by head"
    changes = STEPS | {"HELD_OUT_FRACTION": 0.0, "SAVE_EVERY": 1000}
    process = start(small_run(place, model_dir, **changes), place / "cache")
    assert process.stdout is not None
    assert process.stderr is not None
    while "step 5/40" not in (line := process.stdout.readline()):
        assert line, process.stderr.read()
    process.stdout.close()
    *_, warning, sentence = process.stderr.read().splitlines()
    assert process.wait() == 2
    (saved,) = checkpoint_steps(model_dir)
    assert 5 < saved < 40
    assert warning == f"WARNING: the state of step {saved} was saved on the way out"
    assert f"standard output was closed by what read it: the last good checkpoint is step {saved}; " in sentence
    done = electra(small_run(place, model_dir, **changes), place / "cache")
    assert done.returncode == 0, done
    assert f"resuming from step {saved}" in done.stdout
    assert "no text is held out: the run is not evaluated" in done.stdout
    # The last step's own line was due one step later.
    assert set(range(1, 41)) - set(reported_steps(model_dir)) <= {saved}
    assert reported_steps(model_dir, "validation") == []
    refused = electra(["evaluate", f"--gin.MODEL_DIR={str(model_dir)!r}"], place / "cache")
    assert refused.returncode == 2
    assert "no text is held out: set HELD_OUT_FRACTION" in refused.stderr
