"""The trigram model of `electra compare`: the item that scores it, and the variants that it voids."""

import json
from pathlib import Path
from typing import Any

import pytest

from electra_jax.compare.plan import Plan, make_plan
from electra_jax.compare.records import Records
from electra_jax.compare.report import show, write_report
from electra_jax.compare.results import comparison_of, table_of
from electra_jax.compare.spread import ahead_of, cells_of, statistics_of, void_at
from electra_jax.config import gin_files
from electra_jax.config.comparison import ComparisonRun
from electra_jax.config.probing import TrigramRun
from electra_jax.run_directory import FIGURE
from support.comparison import MACROS, configured, refusal
from support.pages import Page

CHUNK, WORDS = ("probe_chunk", "DATA_DIR = 'conll2000'"), ("probe_words", "DATA_DIR = 'conll2000'")
TEXT = ("SEQUENCE_LENGTH = 32", "MIN_LETTER_SHARE = 0.5", "CACHE_DIR = 'caches'")


def planned(folder: Path = Path("runs/it"), **macros: Any) -> tuple[ComparisonRun, Plan]:
    given = {"TASKS": [CHUNK, WORDS], "FRACTIONS": (1.0,), "PRETRAINING_SEEDS": 2, "NUM_SEEDS": 1}
    run = configured(folder, **(given | {"PRETRAINING": (*MACROS["PRETRAINING"], *TEXT)} | macros))
    return run, make_plan(run, {})


def test_the_trigram_model_is_an_item_of_the_same_text_and_the_same_words() -> None:
    words = (*WORDS, "probing.ProbeRun.mask_prob = 0.3", "TRAIN_SENTENCES = 50")
    _, plan = planned(TASKS=[CHUNK, words], SEED=4)
    (item,) = (one for one in plan.items if one.variant == "trigram")
    assert (item.name, item.task, item.needs, item.flops) == ("trigram/probe_words", "probe_words", None, 0.0)
    command, *flags = item.arguments
    assert command == "trigram"
    bindings = [flag.removeprefix("--gin.") for flag in flags if flag.startswith("--gin.")]
    with gin_files.isolated():
        built = gin_files.build(TrigramRun, ["gin/runs/trigram.gin"], bindings, search_paths=[])
    # The cache of the first pre-training.
    assert (built.cache.source.corpus, built.cache.vocab_file, built.cache.seed) == ("text.txt", "vocab.txt", 4)
    assert (built.cache.sequence_length, built.cache.source.min_letter_share) == (32, 0.5)
    assert built.cache.cache_dir == "caches"
    # Rows of 128 tokens are longer than the model's 32 positions.
    assert (built.task.task, built.task.data_dir, built.task.row_length) == ("words", "conll2000", 32)
    assert (built.mask_prob, list(built.seeds)) == (0.3, [4])


@pytest.mark.parametrize(
    "macros",
    [
        {"TASKS": [CHUNK]},
        {"CORPUS": None, "PRETRAINING": (*MACROS["PRETRAINING"], "MIXTURE_OR_TASK_NAME = 'a_stream'")},
    ],
)
def test_there_is_none_where_no_word_is_asked_or_no_text_is_counted(macros: dict[str, Any]) -> None:
    run, plan = planned(**macros)
    assert [item for item in plan.items if item.variant == "trigram"] == []
    found = comparison_of(run, plan, Records(Path("runs/it"), plan.items, run.seeds), failures={}, config="")
    assert found["void"] is None


def test_no_variant_is_named_like_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "VARIANTS names 'trigram', which electra compare keeps" in refusal(capsys, tmp_path, VARIANTS=["trigram"])


def scored(variant: str, task: str, *values: float, fraction: float = 1.0) -> list[dict[str, Any]]:
    """A score of each pre-training, with one fine-tuning."""
    return [
        {
            "variant": variant,
            "pretraining_seed": seed,
            "fraction": fraction,
            "steps": 3,
            "flops": 9.0,
            "task": task,
            "metric": "accuracy",
            "by_seed": {"0": value},
            "failed_seeds": [],
            **statistics_of({"0": value}),
        }
        for seed, value in enumerate(values)
    ]


def test_a_variant_below_the_trigram_model_in_the_mean_is_void_and_neither_ahead_nor_behind() -> None:
    scores = [
        *scored("trigram", "words", 20.0, fraction=0.0),
        # One seed is above, and the mean of 19 below.
        *[*scored("mlm", "words", 22.0, 16.0), *scored("mlm", "chunk", 80.0, 81.0)],
        *[*scored("electra", "words", 20.0, 20.0), *scored("electra", "chunk", 70.0, 71.0)],
        *[*scored("lm", "words", 30.0, 30.0), *scored("lm", "chunk", 60.0, 61.0)],
        # Of words a pre-training is to come.
        *[*scored("nes", "words", 30.0), *scored("nes", "chunk", 50.0, 51.0)],
    ]
    cells = cells_of(scores, 2)
    void = void_at(cells, words="words", fraction=1.0, num_scores=2)
    assert void == {"mlm": True, "electra": False, "lm": False}
    found = ahead_of(cells, primary="chunk", fraction=1.0, num_pretrainings=2, void=void)
    assert found == {"electra": ["lm"], "lm": []}
    # Without a model that tells, nothing is void; before it is known, nothing is said.
    every = ahead_of(cells, primary="chunk", fraction=1.0, num_pretrainings=2, void=None)
    assert every["mlm"] == ["electra", "lm", "nes"]
    assert void_at(cells[1:], words="words", fraction=1.0, num_scores=2) == {}
    assert ahead_of(cells, primary="chunk", fraction=1.0, num_pretrainings=2, void={}) == {}


def test_what_is_void_is_marked_in_the_json_the_table_and_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, plan = planned(tmp_path)
    records = Records(tmp_path, plan.items, run.seeds)
    of_words = {"trigram": 20.0, "mlm": 19.0, "electra": 21.0, "random": 3.0}
    for item in plan.items:
        directory = records.directory(item)
        directory.mkdir(parents=True)
        (directory / "run.json").write_text('{"machine": {}, "versions": {}}')
        records.done[item.name] = {"date": "", "seconds": 1.0, "share": 1.0, "command": "", "sha256": "0" * 64}
        if item.task is not None:
            value = of_words[item.variant] if item.task == "probe_words" else 50.0 + item.seed
            seeds = [{"seed": 0, "metrics": {"accuracy": value}, "failed": None}]
            kind = "trigram" if item.variant == "trigram" else "probe"
            results = {"main_metric": "accuracy", "num_examples": {}, "seeds": seeds, "kind": kind}
            (directory / "results.json").write_text(json.dumps(results))
    found = json.loads(json.dumps(comparison_of(run, plan, records, failures={}, config="")))
    assert found["void"] == {"1": {"electra": False, "mlm": True}}
    assert found["ahead"] == {"1": {"electra": []}}
    lines = dict(table_of(found))
    assert lines["trigram model"] == ["", "20.00", ""]
    assert "mlm, 1 (void)" in lines
    assert "electra, 1" in lines
    show(found)
    said = " ".join(capsys.readouterr().out.split())
    assert "mlm at 1 is void: it predicts masked words less often than the trigram model" in said
    write_report(found, tmp_path)
    page = Page((tmp_path / "report.html").read_text()).text
    assert "It predicts 20.00 % of the words that probe_words masks." in " ".join(page.split())
    assert "mlm, 1 (void)" in page
    legend = Page((tmp_path / FIGURE).read_text()).text.split("pre-training FLOPs")[-1]
    assert "mlm (void)" in legend
    assert "electra (void)" not in legend
