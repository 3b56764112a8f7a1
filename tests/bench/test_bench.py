"""Check what the benchmarks rely on, without timing anything."""

import argparse
import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from bench import (
    beside_published,
    beside_transformers,
    device_parity,
    device_steps,
    finetune_step,
    glue_lengths,
    models,
    predict,
    scaling,
    startup,
    timing,
)
from bench.pretrain_step import synthetic_blocks
from electra_jax.config import gin_files
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.data.buckets import TrainingBatches
from electra_jax.tasks.text import glue_metrics
from electra_jax.training.optimizer import learning_rate


def test_dtype_is_the_models() -> None:
    model = models.recipe("tiny", dtype="bfloat16").model
    assert (model.generator_config.dtype, model.discriminator_config.dtype) == ("bfloat16", "bfloat16")


@pytest.mark.parametrize("length", [8, 128])
def test_synthetic_examples_are_whole_and_legal(length: int) -> None:
    vocab_size = 30522
    batch = synthetic_blocks(200, length, vocab_size, seed=3).gather(np.arange(200), length)
    ids_BL = batch["input_ids"]
    assert batch["attention_mask"].all()
    assert (ids_BL[:, 0] == models.CLS_ID).all()
    assert (ids_BL[:, -1] == models.SEP_ID).all()
    assert ((ids_BL == models.SEP_ID).sum(axis=1) == 2).all()
    # Segment B starts behind the [SEP] of segment A.
    first_sep_B = (ids_BL == models.SEP_ID).argmax(axis=1)
    np.testing.assert_array_equal(batch["token_type_ids"].argmax(axis=1), first_sep_B + 1)
    words = ids_BL[~np.isin(ids_BL, [models.CLS_ID, models.SEP_ID])]
    assert words.min() > models.MASK_ID
    assert words.max() < vocab_size
    # As 1 / rank: as many tokens have ids of a quarter of the logarithmic range as of any other.
    share = np.mean(words < models.MASK_ID * (vocab_size / models.MASK_ID) ** 0.5)
    assert share == pytest.approx(0.5, abs=0.05)


def test_synthetic_examples_repeat_by_seed() -> None:
    one, same, other = (synthetic_blocks(4, 16, 500, seed=seed).tokens for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_spread() -> None:
    assert timing.spread([9.0, 1.0, 2.0, 4.0, 3.0]) == timing.Spread(5, 3.0, 1.0, 9.0, 2.0, 4.0)


def test_cpu_time_counts_the_children() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    elapsed = timing.stopwatch(lambda: subprocess.run([sys.executable, "-c", burn], check=True))
    assert elapsed.cpu >= 0.3


# Each command in its smallest setting, one after the other in one process without TensorFlow, SeqIO and Orbax.
COMMANDS = {
    "pretrain_step": "--model=tiny --batch_size=4 --sequence_length=16 --steps=10 --peak_tflops=0.01",
    "finetune_step": "--fused --prng=rbg --model=tiny --batch_size=4 --steps=19 --buckets 16 128 --examples=64",
    "input_pipeline": "--batch_size=4 --sequence_length=16 --batches=3 --rounds=2",
}


@pytest.fixture(scope="module")
def printed(repository: Path) -> dict[str, str]:
    program = f"""
import runpy, sys
# As if they were not installed.
sys.modules.update(dict.fromkeys(["tensorflow", "seqio", "orbax", "clu", "tokenizers"]))
for name, arguments in {COMMANDS!r}.items():
    sys.argv = [name, *arguments.split()]
    runpy.run_module("bench." + name, run_name="__main__")
    print("END")
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return dict(zip(COMMANDS, result.stdout.split("END\n"), strict=False))


@pytest.mark.parametrize("name", ["pretrain_step", "finetune_step"])
def test_steps_run_and_learn_where_no_text_can_be_read(printed: dict[str, str], name: str) -> None:
    line = next(line for line in printed[name].splitlines() if line.startswith("loss"))
    words = line.split()
    assert 0 <= float(words[6]) < float(words[1])
    # Warm-up and timed steps.
    assert words[11] == {"pretrain_step": "13", "finetune_step": "20"}[name]
    for fact in ("median", "quartiles", "min", "matrix FLOPs", "examples/s", "tokens/s", "compile", "peak memory"):
        assert fact in printed[name], fact


def test_the_share_of_the_peak_is_of_the_counted_work(printed: dict[str, str]) -> None:
    lines = printed["pretrain_step"].splitlines()
    achieved = next(float(line.split()[-3]) for line in lines if "achieved" in line)
    share = next(float(line.split("%")[0]) / 100 for line in lines if "stated peak" in line)
    assert share == pytest.approx(achieved / 1e10, rel=0.01, abs=6e-4)


def test_blocks_are_read(printed: dict[str, str]) -> None:
    lines = printed["input_pipeline"].splitlines()
    assert lines[-1].startswith("blocks: ")
    assert all("n 2" in line and "per second of CPU time" in line for line in lines[-1:])


def test_buckets_are_those_of_fine_tuning() -> None:
    text = Path("gin/runs/finetune.gin").read_text()
    shipped = ast.literal_eval(re.search(r"^BUCKETS = (.*)$", text, re.MULTILINE)[1])
    assert tuple(bucket for bucket in shipped if bucket <= glue_lengths.LONGEST) == glue_lengths.BUCKETS
    assert f"\nPOOL_BATCHES = {glue_lengths.POOL_BATCHES}\n" in text


def test_what_buckets_gain_where_time_is_proportional_to_length() -> None:
    """The rate is then that of the tokens: 128 for each row, or the bucket of its batch."""
    options = argparse.Namespace(buckets=glue_lengths.BUCKETS, batch_size=8, examples=1000, seed=3)
    seconds = {bucket: [0.001 * bucket, 0.002 * bucket] for bucket in glue_lengths.BUCKETS}
    line = finetune_step.gain("stsb", seconds, options)
    computed, padded, rate = (
        float(re.search(rf"{words} ([0-9.]+)", line)[1]) for words in ("useful one", "to 128", "median")
    )
    assert rate == pytest.approx(padded / computed, abs=0.02)
    # Each row has its tokens computed at least, and rows of like length are together.
    assert 1 < computed < 1.5
    lengths_N = glue_lengths.lengths("stsb", 1000, seed=3)
    rows = [{"input_ids": np.zeros(n, np.int32)} for n in lengths_N]
    batches = TrainingBatches(rows, 8, glue_lengths.BUCKETS, glue_lengths.POOL_BATCHES, 3, 0)
    shapes = [next(batches)["input_ids"].shape for _ in range(batches.batches_per_epoch)]
    assert computed == pytest.approx(sum(rows * length for rows, length in shapes) / lengths_N.sum(), abs=0.006)


def test_lengths_have_the_deciles_that_were_counted() -> None:
    for task, deciles in glue_lengths.DECILES.items():
        found = np.quantile(glue_lengths.lengths(task, 20_000, seed=0), np.linspace(0, 1, 11))
        np.testing.assert_allclose(found, deciles, atol=1.5, err_msg=task)


def test_texts_to_predict_have_the_lengths_that_were_asked_for() -> None:
    options = argparse.Namespace(model="tiny", task="cola", texts=40, seed=1)
    model = predict.random_model("tiny", 0)
    rows = model.pieces.encode_batch(predict.texts_of(options))
    assert [len(row) + 2 for row in rows] == glue_lengths.lengths("cola", 40, seed=1).tolist()
    assert not any(model.pieces.tokens.index("[UNK]") in row for row in rows)


def test_a_model_of_its_own_size_is_itself_and_others_have_the_work_that_they_should() -> None:
    base = models.recipe("small", dtype="float32")
    assert scaling.resized(base, layers=12, width=256, fraction=0.25).model == base.model
    wide = scaling.resized(base, layers=6, width=512, fraction=0.25).model.discriminator_config
    assert (wide.num_hidden_layers, wide.hidden_size, wide.intermediate_size, wide.num_attention_heads) == (
        6,
        512,
        2048,
        8,
    )


def test_scaling_is_drawn(tmp_path: Path) -> None:
    points = [
        scaling.Point(series, value, 0.1 * value, (0.09 * value, 0.12 * value), 1e6 * value, "")
        for series in ("step, batch", "checkpoint, save")
        for value in (1, 2, 4)
    ]
    scaling.draw(points, "title", tmp_path / "scaling.svg")
    picture = ElementTree.parse(tmp_path / "scaling.svg").getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"step against batch", "checkpoint, save", "100 ms", "400 ms"} <= set(texts)


def test_a_start_is_timed_and_what_fails_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert startup.started([sys.executable, "-c", "pass"], {}).wall > 0
    with pytest.raises(SystemExit, match="no such thing"):
        startup.started([sys.executable, "-c", "raise RuntimeError('no such thing')"], {})


def test_the_peers_two_generators_are_one() -> None:
    """The head at all positions and at gathered ones give the same masks, samples, losses and gradients."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra bench)")
    pytest.importorskip("transformers", reason="transformers is not installed (extra bench)")
    from bench import peer

    recipe = models.recipe("tiny", dtype="float32")
    batch = synthetic_blocks(4, 32, 8192, seed=0).gather(np.arange(4), 32)
    ids_BL, types_BL = (torch.from_numpy(batch[name]).long() for name in ("input_ids", "token_type_ids"))
    found = []
    for gathered in (True, False):
        torch.manual_seed(0)
        pair = peer.Pair(recipe, gathered=gathered).eval()
        embeddings = pair.discriminator.electra.embeddings.word_embeddings.weight
        assert pair.generator.generator_lm_head.weight is embeddings
        torch.manual_seed(1)
        loss = pair(ids_BL, types_BL)
        loss.backward()
        found.append((loss.detach().numpy(), embeddings.grad.numpy()))
    np.testing.assert_allclose(*(loss for loss, _ in found), rtol=1e-5)
    np.testing.assert_allclose(*(gradient for _, gradient in found), atol=1e-5)


def test_the_script_of_fine_tuning_gives_commands_that_can_be_run(tmp_path: Path) -> None:
    stub = tmp_path / "python"
    stub.write_text(f'#!/bin/sh\nprintf "%s\\t" "$@" >>"{tmp_path}/said"\necho >>"{tmp_path}/said"\n')
    stub.chmod(0o755)
    command = ["bench/finetune_small.sh", "model", "data", str(tmp_path / "runs"), "--gin.NUM_SEEDS=1"]
    subprocess.run(command, env=os.environ | {"PYTHON": str(stub)}, check=True, capture_output=True)
    said = [line.split("\t")[:-1] for line in (tmp_path / "said").read_text().splitlines()]
    assert said[-1][:2] == ["-m", "bench.beside_published"]
    tasks = {}
    for line in said:
        if line[2] == "finetune":
            bindings = [word.removeprefix("--gin.") for word in line if word.startswith("--gin.")]
            with gin_files.isolated():
                run = gin_files.build(FinetuningRun, ["gin/runs/finetune.gin"], bindings, search_paths=[])
                rate = run.optimizer(num_train_steps=10, num_warmup_steps=1.0).learning_rate
            assert (run.num_seeds, rate) == (1, 3e-4)
            tasks[run.task.task] = run.model_dir
    assert list(tasks) == ["cola", "sst2", "mrpc", "stsb", "rte", "chunk", "squad_v1", "squad_v2"]
    assert len(set(tasks.values())) == len(tasks)


def test_scores_stand_beside_the_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"matthews": {"median": 12.34, "mean": 12.0, "std": 1.5, "best": 14.0, "n": 3}}
    results = {"task": "cola", "main_metric": "matthews", "summary": summary, "selection": "last"}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert beside_published.main([str(tmp_path)]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1] == "| cola | matthews | 12.3 | 1.5 | 3 | the last checkpoint | 56.8 |"
    )
    assert beside_published.main([str(tmp_path), str(tmp_path / "other")]) == 2
    assert "other has no results.json" in capsys.readouterr().err


def test_differences_of_losses_and_gradients_by_hand() -> None:
    exact = ({"generator": 2.0}, {"kernel": np.array([3.0, 4.0])})
    other = ({"generator": 2.2}, {"kernel": np.array([3.0, 5.0])})
    found = device_parity.differences(exact, other)
    assert found == pytest.approx({"generator loss": 0.1, "gradient": 0.2, "worst element of the gradient": 0.25})


def test_a_case_of_parity_has_padding_and_replaced_tokens() -> None:
    case = device_parity.make_case(models.recipe("tiny", dtype="float32"), batch_size=2, length=32)
    assert np.asarray(case.masked.tokens.attention_mask).sum(axis=1).tolist() == [32, 16]
    assert np.asarray(case.corrupted.labels_BL).sum() > 0


def test_a_program_that_does_not_compile_is_told_and_does_not_end_the_others() -> None:
    recipe = models.recipe("tiny", dtype="float32")
    too_long = device_steps.Variant("tiny", 1, 1024, "float32", fused=False, together=1)
    told = device_steps.attempt(too_long, recipe)
    assert isinstance(told, str)
    assert "Error" in told


def test_both_sides_of_the_comparison_with_transformers_have_one_recipe() -> None:
    recipe = beside_transformers.RECIPE
    unneeded = {"TASK": "mrpc", "INIT_FROM": "weights", "MODEL_DIR": "run", "LAYERWISE_LR_DECAY": 1.0}
    run = gin_files.build(
        FinetuningRun,
        ["gin/runs/finetune.gin", "gin/optimizers/adamw.gin"],
        [f"{name} = {value!r}" for name, value in {**recipe, **unneeded}.items()],
        search_paths=[],
    )
    steps = 40
    ours = run.optimizer(num_train_steps=steps, num_warmup_steps=steps * run.warmup_fraction)
    assert {"betas": (ours.beta_1, ours.beta_2), "eps": ours.epsilon} == beside_transformers.ADAM
    assert (ours.clip_norm, ours.weight_decay_rate) == (beside_transformers.CLIP_NORM, recipe["WEIGHT_DECAY"])
    assert (run.dropout_prob, run.attention_dropout_prob) == (recipe["DROPOUT"], recipe["DROPOUT"])
    theirs = [recipe["LEARNING_RATE"] * beside_transformers.share_of_rate(step, steps) for step in range(steps)]
    np.testing.assert_allclose([learning_rate(ours, step) for step in range(steps)], theirs, rtol=1e-5)


def test_scores_beside_transformers_are_those_of_glue() -> None:
    gold, predicted = np.random.default_rng(0).integers(0, 2, (2, 60)).tolist()
    expected = {"accuracy": glue_metrics.accuracy(gold, predicted), "f1": glue_metrics.f1(gold, predicted)}
    assert beside_transformers.scores_of(gold, predicted) == pytest.approx(expected)
    assert beside_transformers.scores_of([0, 0], [0, 0]) == {"accuracy": 100.0, "f1": 0.0}


def test_a_part_of_the_training_rows_keeps_the_header(tmp_path: Path) -> None:
    (tmp_path / "SST-2").mkdir()
    for split in ("train", "dev"):
        (tmp_path / "SST-2" / f"{split}.tsv").write_text(
            "sentence\tlabel\n" + 'so " good\t1\n' * 3, encoding="utf-8-sig"
        )
    options = argparse.Namespace(data=tmp_path, runs=tmp_path, task="sst2", rows=2)
    files = [beside_transformers.part_of(options, split) for split in ("train", "dev")]
    source = beside_transformers.SOURCES["sst2"]
    examples = [beside_transformers.read_examples(path, source) for path in files]
    assert examples == [[(('so " good',), 1)] * 2, [(('so " good',), 1)] * 3]
