"""`electra compare`: what is done, statistics by hand, and what the JSON, the table and the page say of it."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jax
import pytest

from electra_jax.checkpoints import model_dir as loading
from electra_jax.compare.plan import Plan, make_plan
from electra_jax.compare.records import Records, parameters_sha256
from electra_jax.compare.report import show, write_report
from electra_jax.compare.results import (
    comparison_of,
    heading_of,
    means_of,
    published,
    score_of,
    spent_flops,
    table_of,
    text_of,
)
from electra_jax.compare.spread import (
    ahead_of,
    cells_of,
    is_ahead,
    main_scores,
    pooled_deviation,
    statistics_of,
    tuning_scores,
)
from electra_jax.compare.tuning import at_the_edge, chosen, trials
from electra_jax.config.comparison import ComparisonRun, GridPoint
from support.comparison import configured, plan_of_macros, refusal
from support.finetuned_model import write_tuned
from support.pages import Page


@pytest.fixture(scope="module")
def planned() -> tuple[ComparisonRun, Plan]:
    return plan_of_macros()


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
    item = next(item for item in planned[1].items if item.name == "mlm/0.5/rte")
    score = score_of(item, {"seconds": 3.0, "share": 1.0, "command": "electra finetune"}, RESULTS, range(3))
    assert (score["median"], score["mean"], score["sd"], score["failed_seeds"]) == (50.0, 50.0, 20.0, [2])
    assert (score["variant"], score["fraction"], score["steps"], score["task"]) == ("mlm", 0.5, 51, "rte")
    assert score["selection"] is None
    (cell,) = cells_of([score], 1)
    assert (cell["center"], cell["low"], cell["high"]) == (50.0, 30.0, 70.0)
    assert text_of(cell, None) == "50.00 ± 20.00 (1 failed)"
    assert text_of(None, None) == ""


def test_the_mean_over_tasks_is_taken_seed_by_seed() -> None:
    def score(task: str, *values: float, variant: str = "mlm", seed: int = 0) -> dict[str, Any]:
        by_seed = {str(seed): value for seed, value in enumerate(values)}
        checkpoint = {"variant": variant, "pretraining_seed": seed, "fraction": 1.0, "steps": 3, "flops": 9.0}
        return {**checkpoint, "task": task, "by_seed": by_seed, "failed_seeds": [1] if task == "a" else []}

    # The mean of the medians would be 25.
    scores = [score("a", 10.0, 20.0, 60.0), score("b", 30.0, 50.0, 20.0), score("a", 1.0, 1.0, 1.0, variant="electra")]
    # Of another pre-training one task is to come.
    scores.append(score("a", 0.0, 0.0, 0.0, seed=1))
    (mean,) = means_of(scores, ["a", "b"])
    assert mean["by_seed"] == {"0": 20.0, "1": 35.0, "2": 40.0}
    assert (mean["variant"], mean["median"], mean["failed_seeds"]) == ("mlm", 35.0, [1])


def fine_tuned(variant: str, seed: int, *values: float, fraction: float = 1.0) -> dict[str, Any]:
    """The score of a pre-training's fine-tunings on the task "probe"."""
    by_seed = {str(number): value for number, value in enumerate(values)}
    made = {"variant": variant, "pretraining_seed": seed, "fraction": fraction, "steps": 3, "flops": 9.0}
    shown = {"task": "probe", "metric": "f1", "by_seed": by_seed, "failed_seeds": []}
    return {**made, **shown, **statistics_of(by_seed)}


def test_settings_are_chosen_by_a_score_that_is_not_reported() -> None:
    """A probe's trials are compared on its dev split; a fine-tuning names no score for them."""
    probe = RESULTS | {"tuning_metric": "f1"}
    assert (main_scores(probe, [0]), tuning_scores(probe, [0])) == ({"0": 50.0}, {"0": 1.0})
    assert tuning_scores(RESULTS, [0, 1]) == {"0": 50.0, "1": 70.0}


def test_the_spread_is_over_pre_trainings() -> None:
    """Means of fine-tunings are 60, 64 and 68; fine-tunings spread far wider, and count nowhere."""
    scores = [fine_tuned("rtd", 0, 40.0, 80.0), fine_tuned("rtd", 1, 64.0, 64.0), fine_tuned("rtd", 2, 66.0, 70.0)]
    scores += [fine_tuned("random", 0, 50.0, 52.0, fraction=0.0)]
    cell, random = cells_of(scores, 3)
    assert cell["by_seed"] == {"0": 60.0, "1": 64.0, "2": 68.0}
    assert (cell["center"], cell["sd"], cell["low"], cell["high"], cell["n"]) == (64.0, 4.0, 60.0, 68.0, 3)
    assert text_of(cell, 3) == "64.00 ± 4.00"
    assert text_of(cells_of(scores[:2], 3)[0], 3) == "62.00 ± 2.83 (2 of 3 pre-trainings)"
    # Every fine-tuning of random weights draws others.
    assert random["by_seed"] == {"0": 50.0, "1": 52.0}
    heading = {"seeds": [0, 1], "pretraining_seeds": [0, 1, 2]}
    assert heading_of(heading) == ("mean ± standard deviation over 3 pre-trainings, each the mean of 2 fine-tunings")
    assert heading_of(heading | {"pretraining_seeds": [0]}).endswith("over 2 fine-tunings of one pre-training")
    # One score has no spread.
    assert heading_of({"pretraining_seeds": [0], "seeds": [0]}) == "one fine-tuning of one pre-training"


def test_ahead_is_more_than_two_pooled_deviations() -> None:
    """Deviations 1 (n = 3) and 2 (n = 2) pool to sqrt((2 x 1 + 1 x 4) / 3) = sqrt(2)."""
    first = statistics_of({"0": 69.0, "1": 70.0, "2": 71.0})
    second = statistics_of({"0": 65.0 - 2**0.5, "1": 65.0 + 2**0.5})
    assert pooled_deviation(first, second) == pytest.approx(2**0.5)
    assert is_ahead(first, second)
    assert not is_ahead(second, first)
    near = statistics_of({"0": 67.2 - 2**0.5, "1": 67.2 + 2**0.5})
    assert not is_ahead(first, near)
    # One pre-training cannot be ahead.
    assert not is_ahead(first, statistics_of({"0": 1.0}))
    scores = [fine_tuned(name, seed, base + seed) for name, base in (("rtd", 70.0), ("mlm", 60.0)) for seed in range(3)]
    scores.append(fine_tuned("lm", 0, 10.0))
    found = ahead_of(cells_of(scores, 3), primary="probe", fraction=1.0, num_pretrainings=3, void=None)
    assert found == {"rtd": ["mlm"], "mlm": []}


def test_the_best_pair_of_every_trial_is_chosen(tmp_path: Path) -> None:
    macros = {"VARIANTS": ["electra", ("mlm", "gin/objectives/mlm.gin")], "TASKS": ["rte"]}
    run = configured(tmp_path / "run", **macros, TUNE=((1e-3, 2e-3, 4e-3), (0.1,)), RANDOM_BASELINE=False)
    plan = make_plan(run, {})
    records = Records(tmp_path / "run", plan.items, run.seeds)
    assert chosen(run, trials(run, records)) == {}
    nan = float("nan")
    scores = {"electra": (40.0, nan, 44.0), "mlm": (40.0, 50.0)}
    fine_tunings = [item for item in plan.items if item.task == "rte"]
    for variant, values in scores.items():
        for item, value in zip((one for one in fine_tunings if one.variant == variant), values, strict=False):
            directory = records.directory(item)
            directory.mkdir(parents=True)
            seeds = [result(seed, value + seed) for seed in range(3)]
            (directory / "results.json").write_text(json.dumps(RESULTS | {"seeds": seeds}))
            records.done[item.name] = {"sha256": "0"}
    found = trials(run, records)
    assert [(one["learning_rate"], one["score"]) for one in found["mlm"]] == [(1e-3, 41.0), (2e-3, 51.0)]
    # A trial of MLM is still to come; NaN is never the best.
    best = chosen(run, found)
    assert best == {"electra": GridPoint(4e-3, 0.1)}
    assert at_the_edge(run, best["electra"])
    assert not at_the_edge(run, GridPoint(2e-3, 0.1))
    assert found["mlm"][0]["flops"] == pytest.approx(1e8, rel=0.1)
    done = [item for item in plan.items if item.name == "electra/tune/0.001-0.1/pretrain"]
    assert spent_flops(done) == {"electra": {"tuning": done[0].flops, "pretraining": 0.0}}


@pytest.fixture
def half_done(tmp_path: Path, planned: tuple[ComparisonRun, Plan]) -> Path:
    """A comparison's folder as killed processes leave it: both random items, one pre-training, one fine-tuning."""
    run, plan = planned
    for item in plan.items[:4]:
        directory = tmp_path / "run" / item.name
        if item.task is None:
            write_tuned(directory, "pretraining", labels=(), task=None)
        else:
            directory.mkdir(parents=True)
            (directory / "results.json").write_text(json.dumps(RESULTS))
        made = {"machine": {"host": "secret", "cores": 2}, "versions": {"jax": "1"}}
        (directory / "run.json").write_text(json.dumps(made))
        records = Records(tmp_path / "run", plan.items, run.seeds)
        records.add(item, seconds=10.0, share=0.5 if item.name == "random/mine" else 1.0)
    return tmp_path / "run"


def test_what_is_done_is_known_at_the_next_start(half_done: Path, planned: tuple[ComparisonRun, Plan]) -> None:
    run, plan = planned
    first = [item.name for item in plan.items[:4]]
    found = Records(half_done, plan.items, run.seeds)
    assert list(found.done) == first
    # One more seed: the fine-tunings want it; seed 3 is there, seed 4 is not.
    assert list(Records(half_done, plan.items, range(4)).done) == first
    assert list(Records(half_done, plan.items, range(5)).done) == ["electra/0.2/pretrain"]
    # Settings that came or went with a version of the code do not count.
    path = half_done / "electra/0.2/pretrain.json"
    record = json.loads(path.read_text())
    record["settings"]["EncoderConfig.of_an_older_version"] = "1"
    del record["settings"]["OptimizerConfig.beta_1"]
    path.write_text(json.dumps(record))
    assert list(Records(half_done, plan.items, run.seeds).done) == first


@pytest.mark.parametrize(
    ("item", "change", "sentence"),
    [
        (
            "electra/0.2/pretrain",
            {"PretrainingRun.seed": "7"},
            "was made by other settings (PretrainingRun.seed 7 there",
        ),
        ("random/rte", {"EncoderConfig.hidden_size": "8"}, "(EncoderConfig.hidden_size 8 there, 16 here)"),
        ("electra/0.2/rte", None, "was fine-tuned from other weights than {run}/electra/0.2/pretrain holds: remove"),
        ("electra/0.2/rte", {}, "electra/0.2/rte.json: it has no settings: remove it and {run}/electra/0.2/rte"),
    ],
)
def test_stale_items_are_refused(
    half_done: Path, capsys: pytest.CaptureFixture[str], item: str, change: dict[str, str] | None, sentence: str
) -> None:
    path = half_done / f"{item}.json"
    record = json.loads(path.read_text())
    if change:
        record["settings"] |= change
    elif change is None:
        record["source_sha256"] = "0" * 64
    else:
        del record["settings"]
    path.write_text(json.dumps(record))
    assert sentence.format(run=half_done) in refusal(capsys, half_done)
    assert path.exists()


def test_the_share_of_an_item_that_is_there(tmp_path: Path, planned: tuple[ComparisonRun, Plan]) -> None:
    run, plan = planned
    items = {item.name: item for item in plan.items}
    records = Records(tmp_path, plan.items, run.seeds)
    stage, tuned = items["electra/0.5/pretrain"], items["electra/0.5/rte"]
    assert (records.share(stage), records.share(tuned)) == (0.0, 0.0)
    (tmp_path / stage.name).mkdir(parents=True)
    # Steps 18 to 43 are its own; the last line is half written.
    lines = [json.dumps({"step": step, "split": "train"}) for step in (17, 30)]
    (tmp_path / stage.name / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 4']))
    (tmp_path / tuned.name / "seeds/1").mkdir(parents=True)
    (tmp_path / tuned.name / "seeds/1/result.json").write_text("{}")
    assert (records.share(stage), records.share(tuned)) == (0.5, pytest.approx(1 / 3))


def test_the_last_metrics_of_held_out_text(tmp_path: Path, planned: tuple[ComparisonRun, Plan]) -> None:
    run, plan = planned
    stage = next(item for item in plan.items if item.task is None)
    records = Records(tmp_path, plan.items, run.seeds)
    assert records.held_out(stage) == {}
    (tmp_path / stage.name).mkdir(parents=True)
    rows = [(17, "validation", 3.0), (18, "validation", 2.0), (19, "train", 1.0)]
    lines = [json.dumps({"step": step, "split": split, "loss": loss}) for step, split, loss in rows]
    (tmp_path / stage.name / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 4']))
    assert records.held_out(stage) == {"step": 18, "loss": 2.0}


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
    records = Records(half_done, plan.items, run.seeds)
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
    # What a killed process took is not what the item takes.
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
    records = Records(half_done, plan.items, run.seeds)
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
    picture = ElementTree.parse(half_done / "elsewhere/comparison.svg").getroot()
    assert [one.text for one in picture.iter("{http://www.w3.org/2000/svg}text") if one.get("class") == "title"] == [
        "rte",
        "mine",
        "mean of the tasks",
    ]
    marks = [one.get("class") for one in picture.iter()]
    assert (marks.count("median"), marks.count("seed")) == (1, 3)
    page = Page((half_done / "elsewhere/report.html").read_text())
    assert "4 of 20 pre-trainings and fine-tunings are done." in page.text
    assert "mlm/0.2/pretrain: ended with <exit> code 1" in page.text
    assert ("class", "verdict warn") in page.attributes
    assert found["checkpoints"][0]["parameters_sha256"][:16] in page.text
    assert [name for name, value in page.attributes if name in ("src", "href") and not value.startswith("data:")] == []
    # What is still to come is no warning.
    write_report(found | {"pieces": found["pieces"] | {"failed": {}}}, half_done / "elsewhere")
    page = Page((half_done / "elsewhere/report.html").read_text())
    assert ("class", "verdict plain") in page.attributes
    assert "4 of 20 pre-trainings and fine-tunings are done. What is missing below is still to come." in page.text
