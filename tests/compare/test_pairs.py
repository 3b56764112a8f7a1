"""Minimal pairs as a task of `electra compare`: a score of each checkpoint by its own tower, without fine-tuning."""

import json
from pathlib import Path

import pytest

from electra_jax.cli import main
from electra_jax.compare.plan import make_plan
from electra_jax.compare.records import Records
from electra_jax.compare.report import write_report
from electra_jax.compare.results import comparison_of, table_of
from support.comparison import configured, refusal
from support.finetuned_model import write_tuned
from support.pages import Page

PAIRS = [("the cats ran", "the cat ran"), ("the dog ran home", "home dog the ran")]


def test_checkpoints_are_scored_and_neither_compared_nor_averaged(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    lines = (json.dumps({"sentence_good": good, "sentence_bad": bad}) for good, bad in PAIRS)
    (tmp_path / "pairs/order.jsonl").write_text("\n".join(lines))
    tasks = [("rte", "EPOCHS = 2"), ("pairs_order", f"DATA_DIR = {str(tmp_path / 'pairs')!r}")]
    run = configured(tmp_path / "run", TASKS=tasks, FRACTIONS=(1.0,), FINETUNING=("LEARNING_RATE = 1e-3",))
    plan = make_plan(run, {})
    names = [item.name for item in plan.items]
    assert names == [
        "random/rte",
        *(f"{variant}/1/{item}" for variant in ("electra", "mlm") for item in ("pretrain", "rte", "pairs_order")),
    ]
    items = {item.name: item for item in plan.items}
    records = Records(tmp_path / "run", plan.items, run.seeds)
    for variant, kind in (("electra", "pretraining"), ("mlm", "generator")):
        stage, pairs = items[f"{variant}/1/pretrain"], items[f"{variant}/1/pairs_order"]
        write_tuned(records.directory(stage), kind, labels=(), task=None)
        (records.directory(stage) / "run.json").write_text('{"machine": {}, "versions": {"jax": "1"}}')
        records.add(stage, seconds=1.0, share=1.0)
        assert (pairs.needs, records.results(pairs)) == (stage.name, None)
        records.directory(pairs).mkdir(parents=True)
        assert main(list(pairs.arguments)) == 0
        records.add(pairs, seconds=1.0, share=1.0)
        # Beside the item, not in the checkpoint's directory.
        assert not (records.directory(stage) / "minimal_pairs.json").exists()
    # At the next start they are known.
    records = Records(tmp_path / "run", plan.items, run.seeds)
    assert {name for name in records.done if "pairs" in name} == {"electra/1/pairs_order", "mlm/1/pairs_order"}
    found = json.loads(json.dumps(comparison_of(run, plan, records, failures={}, config="")))
    scores = {score["variant"]: score for score in found["scores"]}
    # Each by its main tower.
    assert {name: score["metric"] for name, score in scores.items()} == {
        "electra": "discriminator, sum",
        "mlm": "mlm, sum",
    }
    held = json.loads((tmp_path / "run/electra/1/pairs_order/minimal_pairs.json").read_text())
    assert scores["electra"]["by_seed"] == {"0": held["discriminator"]["sum"]}
    assert scores["electra"]["num_examples"] == {"pairs": 2}
    assert "selection" not in scores["electra"]
    assert found["means"] == []
    lines = dict(table_of(found))
    assert lines["random weights"] == ["", ""]
    assert lines["mlm, 1"] == ["", f"{scores['mlm']['median']:.2f}"]
    write_report(found, tmp_path)
    assert "Each variant scores by its own main tower" in Page((tmp_path / "report.html").read_text()).text


@pytest.mark.parametrize(
    ("tasks", "sentence"),
    [
        ([("pairs_blimp", "DATA_DIR = 'blimp'"), "rte"], "TASKS begins with 'pairs_blimp', and pairs do not compare"),
        (["rte", ("pairs_blimp",)], "'pairs_blimp' names no pairs: bind DATA_DIR to their folder"),
        (["rte", ("pairs_blimp", "OUTPUT = 'x'")], "pairs_blimp binds OUTPUT, which electra compare sets itself"),
    ],
)
def test_pairs_that_are_refused(
    tasks: list[object], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refusal(capsys, tmp_path, TASKS=tasks)
