"""`electra compare`: the plan in hand-worked FLOPs, what is done and what is ready, statistics, and what is refused."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gin
import jax
import pytest
from pages import Page

from electra_jax import gin_config, loading
from electra_jax.cli import main
from electra_jax.comparison import ComparisonRun
from electra_jax.comparison_pieces import Piece, Timing, ready, seconds_left
from electra_jax.comparison_plan import Plan, make_plan
from electra_jax.comparison_records import Records, parameters_sha256
from electra_jax.comparison_report import show, write_report
from electra_jax.comparison_results import cell, comparison_of, means_of, published, score_of, statistics_of, table_of
from electra_jax.comparison_work import gpu_share, last_words
from tuned import write_tuned

SIZES = (
    "VOCAB_SIZE = 100",
    "BATCH_SIZE = 8",
    "SEQUENCE_LENGTH = 32",
    *(
        f"encoder.EncoderConfig.{name} = {value}"
        for name, value in {
            "hidden_size": 16,
            "embedding_size": 16,
            "num_hidden_layers": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 32,
        }.items()
    ),
)
# Of one step on 8 x 32 tokens, of which 32 are masked: three times the forward pass, worked out by hand.
ENCODER = 2 * 8 * 32 * 2 * (4 * 16 * 16 + 2 * 16 * 32 + 2 * 32 * 16)
MLM_STEP = 3 * (ENCODER + 2 * 32 * 16 * (16 + 100))
# The generator is of width 4, feed-forward 16; its embeddings of 16 are projected.
GENERATOR = 2 * 8 * 32 * (2 * (4 * 4 * 4 + 2 * 4 * 16 + 2 * 32 * 4) + 16 * 4) + 2 * 32 * 16 * (4 + 100)
ELECTRA_STEP = 3 * (ENCODER + 2 * 8 * 32 * (16 * 16 + 16) + GENERATOR)
MACROS = {
    "CORPUS": "text.txt",
    "VOCAB_FILE": "vocab.txt",
    "FLOPS": 1e9,
    "FRACTIONS": (0.2, 0.5, 1.0),
    "VARIANTS": [("electra", "gin/objectives/electra.gin"), ("mlm", "gin/objectives/mlm.gin", "LEARNING_RATE = 2e-3")],
    "TASKS": [("rte", "EPOCHS = 2"), ("mine", "TASK = 'sst2'")],
    "WARMUP_FRACTION": 0.1,
    "PRETRAINING": ("gin/models/tiny.gin", "gin/runs/pretrain.gin", *SIZES),
}


def arguments(folder: Path, **macros: Any) -> list[str]:
    """Of `electra compare`."""
    given = {"MODEL_DIR": str(folder)} | MACROS | macros
    return ["compare", *(f"--gin.{name}={value!r}" for name, value in given.items())]


def configured(folder: Path, **macros: Any) -> ComparisonRun:
    bindings = [argument.removeprefix("--gin.") for argument in arguments(folder, **macros)[1:]]
    return gin_config.build("comparison.ComparisonRun", ["gin/runs/compare.gin"], bindings, search_paths=[])


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    gin.clear_config(clear_constants=True)


@pytest.fixture(scope="module")
def planned() -> tuple[ComparisonRun, Plan]:
    """Of `MACROS`, in a folder that is not there."""
    run = configured(Path("runs/it"))
    return run, make_plan(run)


Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """The one sentence that the command line ends with; nothing was begun."""

    def run(**macros: Any) -> str:
        assert main(arguments(tmp_path / "run", **macros)) == 2
        said = capsys.readouterr()
        assert "begun" not in said.out
        (sentence,) = said.err.splitlines()
        return sentence.removeprefix("electra: ")

    return run


def test_the_same_flops_are_other_steps_of_each_variant(planned: tuple[ComparisonRun, Plan]) -> None:
    _, plan = planned
    assert (ELECTRA_STEP, MLM_STEP) == (11_649_024, 9_793_536)
    assert plan.step_flops == {"electra": ELECTRA_STEP, "mlm": MLM_STEP}
    # 1e9 FLOPs are 85.8 and 102.1 steps.
    assert plan.total_steps == {"electra": 86, "mlm": 102}
    steps = {piece.name: piece.steps for piece in plan.pieces if piece.task is None}
    assert steps == {
        "electra/0.2/pretrain": 17,
        "mlm/0.2/pretrain": 20,
        "electra/0.5/pretrain": 43,
        "mlm/0.5/pretrain": 51,
        "electra/1/pretrain": 86,
        "mlm/1/pretrain": 102,
    }
    assert {piece.flops / piece.steps for piece in plan.pieces if piece.variant == "mlm"} == {float(MLM_STEP)}
    assert [piece.name for piece in plan.pieces][:8] == [
        "random/rte",
        "random/mine",
        "electra/0.2/pretrain",
        "electra/0.2/rte",
        "electra/0.2/mine",
        "mlm/0.2/pretrain",
        "mlm/0.2/rte",
        "mlm/0.2/mine",
    ]


def test_a_stage_has_the_schedule_of_the_whole_budget(planned: tuple[ComparisonRun, Plan]) -> None:
    """What the commands of the pieces say, as the processes will read it."""
    _, plan = planned
    pieces = {piece.name: piece for piece in plan.pieces}
    built = {
        name: built_by(pieces[name]) for name in ("electra/0.2/pretrain", "mlm/1/pretrain", "mlm/0.5/rte", "random/rte")
    }
    first, last = built["electra/0.2/pretrain"], built["mlm/1/pretrain"]
    assert (first.loop.num_train_steps, first.optimizer.num_train_steps, first.optimizer.num_warmup_steps) == (
        17,
        86,
        9,
    )
    assert (last.loop.num_train_steps, last.optimizer.num_train_steps, last.optimizer.num_warmup_steps) == (
        102,
        102,
        10,
    )
    assert (first.optimizer.learning_rate, last.optimizer.learning_rate) == (5e-4, 2e-3)
    assert (first.seed, first.cache, first.encoder) == (last.seed, last.cache, last.encoder)
    tuned, random = built["mlm/0.5/rte"], built["random/rte"]
    assert (tuned.init_from, tuned.model_dir) == ("runs/it/mlm/0.5/pretrain", "runs/it/mlm/0.5/rte")
    assert (random.init_from, random.encoder(), random.num_epochs) == (None, first.encoder, 2)
    assert [tuned.task.task, built_by(pieces["mlm/0.5/mine"]).task.task] == ["rte", "sst2"]
    assert list(tuned.seeds) == [0, 1, 2]


def built_by(piece: Piece) -> Any:
    """What a piece's process builds of its arguments."""
    verb, *flags = piece.arguments
    files = [flag.removeprefix("--gin_file=") for flag in flags if flag.startswith("--gin_file=")]
    bindings = [flag.removeprefix("--gin.") for flag in flags if flag.startswith("--gin.")]
    kind = {"pretrain": "PretrainingRun", "finetune": "finetune_run.FinetuningRun"}[verb]
    return gin_config.build(kind, files, bindings, search_paths=[])


def test_gin_files_are_looked_for_where_the_command_says(tmp_path: Path) -> None:
    (tmp_path / "warm.gin").write_text("DROPOUT = 0.25\n")
    macros = MACROS | {"VARIANTS": [("warm", "gin/objectives/mlm.gin", "warm.gin")]}
    bindings = [f"{name}={value!r}" for name, value in ({"MODEL_DIR": "run"} | macros).items()]
    run = gin_config.build(
        "comparison.ComparisonRun", ["gin/runs/compare.gin"], bindings, search_paths=[str(tmp_path), "elsewhere"]
    )
    stage = next(piece for piece in make_plan(run).pieces if piece.task is None)
    assert f"--gin_search_paths={tmp_path},elsewhere" in stage.arguments
    assert stage.settings["EncoderConfig.hidden_dropout_prob"] == "0.25"
    # Its macro stands for another.
    assert stage.settings["EncoderConfig.attention_probs_dropout_prob"] == "0.25"


def test_what_is_ready(planned: tuple[ComparisonRun, Plan]) -> None:
    _, plan = planned
    names = [piece.name for piece in ready(plan.pieces, done=(), begun=())]
    assert names == ["random/rte", "random/mine", "electra/0.2/pretrain", "mlm/0.2/pretrain"]
    done = {"random/rte", "electra/0.2/pretrain", "electra/0.2/mine"}
    names = [piece.name for piece in ready(plan.pieces, done=done, begun={"random/mine"})]
    assert names == ["electra/0.2/rte", "mlm/0.2/pretrain", "electra/0.5/pretrain"]
    # What failed counts as begun: what needs it is not begun, and the rest goes on.
    names = [piece.name for piece in ready(plan.pieces, done=done, begun={"random/mine", "electra/0.5/pretrain"})]
    assert names == ["electra/0.2/rte", "mlm/0.2/pretrain"]


def work(name: str, flops: float, needs: str | None, task: str | None = None) -> Piece:
    return Piece(name, name[0], 1.0, task, (), {}, 1, flops, needs)


def test_time_left() -> None:
    pieces = [
        work("a/1", 10.0, None),
        work("a/1/x", 10.0, "a/1", "x"),
        work("a/2", 30.0, "a/1"),
        work("a/2/x", 30.0, "a/2", "x"),
        work("b/1", 10.0, None),
    ]
    assert seconds_left(pieces, {}, processes=1) == (0.0, [piece.name for piece in pieces])
    # A quarter of ten FLOPs took five seconds: two a FLOP, 15 and 20 more of a, and b as slow as a.
    under_way = {"a/1": Timing(5.0, 0.25, 0.75)}
    assert seconds_left(pieces, under_way, processes=1) == (15 + 40 + 20, ["a/1/x", "a/2/x"])
    # Each variant has its own speed, and a process that went on with a piece did only its share of it.
    done = {"a/1": Timing(5.0, 0.5, 0.0), "b/1": Timing(40.0, 1.0, 0.0), "a/1/x": Timing(7.0, 1.0, 0.0)}
    assert seconds_left(pieces, done, processes=1) == (20 + 7, [])
    # Side by side, but none shorter than its longest piece.
    assert seconds_left(pieces, done, processes=2) == (20, [])


def result(seed: int, score: float, failed: str | None = None) -> dict[str, Any]:
    return {"seed": seed, "metrics": {"accuracy": score, "f1": 1.0}, "failed": failed}


RESULTS = {
    "main_metric": "accuracy",
    "num_examples": {"train": 9, "dev": 4},
    "seeds": [result(0, 50.0), result(1, 70.0), result(2, 30.0, "says 1 of everything"), result(3, 99.0)],
}


def test_statistics_by_hand(planned: tuple[ComparisonRun, Plan]) -> None:
    assert statistics_of({"0": 1.0, "1": 2.0, "2": 6.0}) == {
        "median": 2.0,
        "mean": 3.0,
        "sd": pytest.approx(7**0.5),
        "lowest": 1.0,
        "highest": 6.0,
        "n": 3,
    }
    assert statistics_of({"0": 4.0})["sd"] == 0.0
    # Of four seeds three are asked for, and the one that failed counts.
    piece = next(piece for piece in planned[1].pieces if piece.name == "mlm/0.5/rte")
    score = score_of(piece, {"seconds": 3.0, "command": "electra finetune"}, RESULTS, range(3))
    assert (score["median"], score["mean"], score["sd"], score["failed_seeds"]) == (50.0, 50.0, 20.0, [2])
    assert (score["variant"], score["fraction"], score["steps"], score["task"]) == ("mlm", 0.5, 51, "rte")
    assert cell(score) == "50.00 ± 20.00 (1 failed)"
    assert cell(None) == ""


def test_the_mean_over_tasks_is_taken_seed_by_seed() -> None:
    def score(task: str, *values: float, variant: str = "mlm") -> dict[str, Any]:
        by_seed = {str(seed): value for seed, value in enumerate(values)}
        checkpoint = {"variant": variant, "fraction": 1.0, "steps": 3, "flops": 9.0}
        return {**checkpoint, "task": task, "by_seed": by_seed, "failed_seeds": [1] if task == "a" else []}

    # The mean of the medians would be 25.
    scores = [score("a", 10.0, 20.0, 60.0), score("b", 30.0, 50.0, 20.0), score("a", 1.0, 1.0, 1.0, variant="electra")]
    (mean,) = means_of(scores, ["a", "b"])
    assert mean["by_seed"] == {"0": 20.0, "1": 35.0, "2": 40.0}
    assert (mean["variant"], mean["median"], mean["failed_seeds"]) == ("mlm", 35.0, [1])


@pytest.fixture
def half_done(tmp_path: Path, planned: tuple[ComparisonRun, Plan]) -> Path:
    """A comparison's folder as killed processes leave it: both random pieces, one pre-training, one fine-tuning."""
    run, plan = planned
    for piece in plan.pieces[:4]:
        directory = tmp_path / "run" / piece.name
        if piece.task is None:
            write_tuned(directory, "pretraining", labels=(), task=None)
        else:
            directory.mkdir(parents=True)
            (directory / "results.json").write_text(json.dumps(RESULTS))
        made = {"machine": {"host": "secret", "cores": 2}, "versions": {"jax": "1"}}
        (directory / "run.json").write_text(json.dumps(made))
        records = Records(tmp_path / "run", plan.pieces, run.seeds)
        records.add(piece, seconds=10.0, share=0.5 if piece.name == "random/mine" else 1.0)
    return tmp_path / "run"


def test_what_is_done_is_known_at_the_next_start(half_done: Path, planned: tuple[ComparisonRun, Plan]) -> None:
    run, plan = planned
    first = [piece.name for piece in plan.pieces[:4]]
    found = Records(half_done, plan.pieces, run.seeds)
    assert list(found.done) == first
    # One more seed: the fine-tunings want it; seed 3 is there, seed 4 is not.
    assert list(Records(half_done, plan.pieces, range(4)).done) == first
    assert list(Records(half_done, plan.pieces, range(5)).done) == ["electra/0.2/pretrain"]
    # Settings that came or went with a version of the code do not count.
    path = half_done / "electra/0.2/pretrain.json"
    record = json.loads(path.read_text())
    record["settings"]["EncoderConfig.of_an_older_version"] = "1"
    del record["settings"]["OptimizerConfig.beta_1"]
    path.write_text(json.dumps(record))
    assert list(Records(half_done, plan.pieces, run.seeds).done) == first


@pytest.mark.parametrize(
    ("piece", "change", "sentence"),
    [
        (
            "electra/0.2/pretrain",
            {"PretrainingRun.seed": "7"},
            "was made by other settings (PretrainingRun.seed 7 there",
        ),
        ("random/rte", {"EncoderConfig.hidden_size": "8"}, "(EncoderConfig.hidden_size 8 there, 16 here)"),
        ("electra/0.2/rte", None, "was fine-tuned from other weights than {run}/electra/0.2/pretrain holds: remove"),
        ("electra/0.2/rte", {}, "electra/0.2/rte.json is damaged ('settings'): remove it and {run}/electra/0.2/rte"),
    ],
)
def test_stale_pieces_are_refused(
    half_done: Path, refused: Refused, piece: str, change: dict[str, str] | None, sentence: str
) -> None:
    path = half_done / f"{piece}.json"
    record = json.loads(path.read_text())
    if change:
        record["settings"] |= change
    elif change is None:
        record["source_sha256"] = "0" * 64
    else:
        del record["settings"]
    path.write_text(json.dumps(record))
    assert sentence.format(run=half_done) in refused()
    assert path.exists()


def test_the_share_of_a_piece_that_is_there(tmp_path: Path, planned: tuple[ComparisonRun, Plan]) -> None:
    run, plan = planned
    pieces = {piece.name: piece for piece in plan.pieces}
    records = Records(tmp_path, plan.pieces, run.seeds)
    stage, tuned = pieces["electra/0.5/pretrain"], pieces["electra/0.5/rte"]
    assert (records.share(stage), records.share(tuned)) == (0.0, 0.0)
    (tmp_path / stage.name).mkdir(parents=True)
    # Steps 18 to 43 are its own; the last line is half written.
    (tmp_path / stage.name / "metrics.jsonl").write_text('{"step": 17}\n{"step": 30}\n{"step": 4')
    (tmp_path / tuned.name / "seeds/1").mkdir(parents=True)
    (tmp_path / tuned.name / "seeds/1/result.json").write_text("{}")
    assert (records.share(stage), records.share(tuned)) == (0.5, pytest.approx(1 / 3))


def test_equal_weights_have_equal_hashes(tmp_path: Path) -> None:
    first = write_tuned(tmp_path / "first", "pretraining", labels=(), task=None)
    model = loading.load(first)

    def stored(name: str, params: Any) -> Path:
        (tmp_path / name).mkdir()
        loading.write_model(tmp_path / name, model.description, {"params": params}, step=9, vocabulary=None)
        return tmp_path / name

    hashes = [parameters_sha256(first), parameters_sha256(stored("same", model.params))]
    leaves, structure = jax.tree.flatten(model.params)
    changed = leaves[-1].copy()
    changed.flat[-1] += 1e-3
    hashes.append(parameters_sha256(stored("other", jax.tree.unflatten(structure, [*leaves[:-1], changed]))))
    assert hashes[0] == hashes[1] != hashes[2]
    assert len(hashes[0]) == 64


def test_the_json_names_no_place_of_this_machine(half_done: Path, planned: tuple[ComparisonRun, Plan]) -> None:
    _, plan = planned
    run = dataclasses.replace(planned[0], model_dir=str(half_done))
    records = Records(half_done, plan.pieces, run.seeds)
    failures = {"mlm/0.2/pretrain": f"ended; all of its words are in {half_done}/mlm/0.2/pretrain.log"}
    config = f"CORPUS = '{half_done.parent}/my text/*.txt'\nMODEL_DIR = '{half_done}'\nA = 'gs://bucket/a/b'\nB = 1/2/3"
    found = comparison_of(run, plan, records, failures=failures, config=config)
    assert str(half_done.parent) not in json.dumps(found)
    assert "secret" not in json.dumps(found)
    assert found["machine"] == {"cores": 2}
    assert (
        found["pieces"]["failed"]["mlm/0.2/pretrain"] == "ended; all of its words are in MODEL_DIR/mlm/0.2/pretrain.log"
    )
    assert found["config"] == "CORPUS = '.../*.txt'\nMODEL_DIR = 'MODEL_DIR'\nA = 'gs://bucket/a/b'\nB = 1/2/3"
    # What a killed process took is not what the piece takes.
    assert {score["task"]: score["seconds"] for score in found["scores"] if score["fraction"] == 0} == {
        "rte": 10.0,
        "mine": None,
    }
    assert [one["directory"] for one in found["checkpoints"]] == ["electra/0.2/pretrain"]
    assert found["pieces"] | {"failed": 0} == {"done": 4, "all": 20, "failed": 0}


def test_places_are_cut_also_in_commands() -> None:
    def cut(text: str) -> str:
        return published(text, "/home/me/run")

    assert cut("electra pretrain --gin_file=/data/x/a.gin") == "electra pretrain --gin_file=.../a.gin"
    assert cut("'--gin.A='\"'\"'/data/my x/t.txt'\"'\"''") == "'--gin.A='\"'\"'.../t.txt'\"'\"''"
    assert cut("('/data/x/*.txt', \"/data/y\")") == "('.../*.txt', \".../y\")"
    assert cut("/home/me/run/mlm /home/me/runs/mlm") == "MODEL_DIR/mlm .../mlm"
    assert cut("1 / 2, gin/runs/a.gin, x=a/b") == "1 / 2, gin/runs/a.gin, x=a/b"


def test_table_figure_and_page(
    half_done: Path, planned: tuple[ComparisonRun, Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    run, plan = planned
    records = Records(half_done, plan.pieces, run.seeds)
    failures = {"mlm/0.2/pretrain": "ended with <exit> code 1"}
    found = comparison_of(run, plan, records, failures=failures, config="A = 1\n")
    lines = dict(table_of(found))
    scores = "50.00 ± 20.00 (1 failed)"
    assert lines["random weights"] == [scores, scores, scores]
    assert lines["electra, 0.2"] == [scores, "", ""]
    assert list(lines)[1:] == [f"{name}, {fraction}" for name in ("electra", "mlm") for fraction in ("0.2", "0.5", "1")]
    show(found)
    assert re.search(r"│ electra, 0\.2 +│ 50\.00 ± 20\.00 \(1 failed\) │ +│ +│", capsys.readouterr().out)
    # Made of the JSON alone, as one in another place.
    (half_done / "elsewhere").mkdir()
    write_report(json.loads(json.dumps(found)), half_done / "elsewhere")
    picture = (half_done / "elsewhere/comparison.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    page = Page((half_done / "elsewhere/report.html").read_text())
    assert "4 of 20 pre-trainings and fine-tunings are done." in page.text
    assert "mlm/0.2/pretrain: ended with <exit> code 1" in page.text
    assert found["checkpoints"][0]["parameters_sha256"][:16] in page.text
    assert [name for name, value in page.attributes if name in ("src", "href") and not value.startswith("data:")] == []


@pytest.mark.parametrize(
    ("macros", "sentence"),
    [
        ({"VARIANTS": [("mlm",), ("mlm", "DROPOUT = 0.0")]}, "VARIANTS names 'mlm' twice: give each its own name"),
        ({"VARIANTS": [("../up",)]}, "VARIANTS names '../up', which also names a folder: use letters"),
        ({"VARIANTS": [("random",)]}, "VARIANTS names 'random', which electra compare keeps for itself"),
        ({"TASKS": [("pretrain", "TASK = 'rte'")]}, "TASKS names 'pretrain', which electra compare keeps for itself"),
        ({"VARIANTS": [("a", "DROPOUT")]}, "VARIANTS has 'DROPOUT': an override is a Gin file or NAME = VALUE"),
        ({"VARIANTS": [3]}, "VARIANTS has 3: an entry is a name and its overrides"),
        ({"VARIANTS": "mlm"}, "VARIANTS is 'mlm': it must be a list"),
        ({"VARIANTS": []}, "VARIANTS is empty"),
        ({"PRETRAINING": "gin/models/tiny.gin"}, "PRETRAINING is 'gin/models/tiny.gin': it must be a list"),
        ({"VARIANTS": [("a", "TRAIN_STEPS = 3")]}, "a binds TRAIN_STEPS, which electra compare sets itself"),
        ({"FINETUNING": ["SEED = 3"]}, "FINETUNING binds SEED, which electra compare sets itself: leave it out"),
        ({"FLOPS": 2e7}, "FLOPS 2e+07 makes less than one step of 'electra' at the fraction 0.2 (a step is 1.165e+07"),
        (
            {"FLOPS": 6e7, "FRACTIONS": (0.2, 0.25, 1.0)},
            "the fractions 0.2 and 0.25 of FLOPS 6e+07 are both step 1 of 'electra': leave one out, or raise FLOPS",
        ),
        ({"FLOPS": -1.0}, "FLOPS is -1.0: it must be positive"),
        ({"FRACTIONS": (0.0, 1.0)}, "FRACTIONS has 0: a fraction of the budget is above 0 and at most 1"),
        ({"FRACTIONS": (0.5, 1.5)}, "FRACTIONS has 1.5: a fraction of the budget is above 0 and at most 1"),
        ({"FRACTIONS": (1.0, 0.5)}, "FRACTIONS is (1.0, 0.5): it must rise"),
        ({"FRACTIONS": (0.5, 0.5)}, "FRACTIONS is (0.5, 0.5): it must rise"),
        ({"FRACTIONS": ()}, "FRACTIONS is (): it must be a list of numbers"),
        ({"TASKS": ["colla"]}, "There is no task 'colla'; the nearest: cola"),
        (
            {"VARIANTS": [("a", "gin/objectives/ml.gin")]},
            "'a': no Gin file gin/objectives/ml.gin in the working folder",
        ),
        ({"VARIANTS": [("a", "DROPOT = 0.0")]}, "'a': --gin.DROPOT=0.0: no macro DROPOT is used by the Gin files; did"),
        ({"TASKS": [("rte", "EPOCHS = 'x'")]}, "'rte': EPOCHS (electra_jax.finetune_run.FinetuningRun.epochs) is 'x'"),
        ({"NUM_SEEDS": 0}, "NUM_SEEDS is 0: it must be at least 1"),
        ({"PROCESSES": 0}, "PROCESSES is 0: it must be at least 1"),
        ({"WARMUP_FRACTION": 1.5}, "WARMUP_FRACTION is 1.5: it must be from 0 to 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    refused: Refused, tmp_path: Path, macros: dict[str, Any], sentence: str
) -> None:
    assert sentence in refused(**macros)
    assert not (tmp_path / "run").exists()


def test_a_processs_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n$ electra pretrain\nelectra: an older mistake\n")
    assert last_words(log) == "electra: an older mistake"
    with log.open("a") as stream:
        stream.write("\n$ electra pretrain\nstep 1\n")
    assert last_words(log) == "step 1"
    with log.open("a") as stream:
        stream.write("electra: it is full\nand more\n\n")
    assert last_words(log) == "electra: it is full"


def test_each_process_has_its_gpu_or_its_part_of_one() -> None:
    assert gpu_share(0, 1, ["0", "1"]) == {}
    assert gpu_share(3, 4, []) == {}
    assert [gpu_share(index, 2, ["4", "7"]) for index in range(2)] == [
        {"CUDA_VISIBLE_DEVICES": "4"},
        {"CUDA_VISIBLE_DEVICES": "7"},
    ]
    # Three on two: the first is shared.
    shared = [gpu_share(index, 3, ["0", "1"]) for index in range(3)]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shared] == ["0", "1", "0"]
    assert [share.get("XLA_PYTHON_CLIENT_MEM_FRACTION") for share in shared] == ["0.45", None, "0.45"]
