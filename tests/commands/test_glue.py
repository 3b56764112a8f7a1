"""`electra glue` on results as `electra finetune` writes them."""

import json
from pathlib import Path

import pytest

from electra_jax import cli
from electra_jax.finetuning.results import summary
from electra_jax.tasks.text.glue_metrics import AVERAGED


def _run(folder: Path, task: str, values: list[float], *, failed: int = 0) -> str:
    metric = AVERAGED.get(task, "accuracy")
    seeds = [
        {"seed": seed, "steps": 3, "metrics": {metric: value}, "failed": "same" if seed < failed else None}
        for seed, value in enumerate(values)
    ]
    directory = folder / task
    directory.mkdir()
    results = {
        "task": task,
        "kind": "classification",
        "main_metric": metric,
        "num_examples": {"dev": 1},
        "seeds": seeds,
        "summary": summary(seeds),
        "best_seed": 0,
        "num_failed": failed,
    }
    (directory / "results.json").write_text(json.dumps(results))
    return str(directory)


def test_the_average_is_of_medians_of_the_eight_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Medians 50, 51, ... 57; the failed seed's 0 and WNLI's 99 count nowhere.
    runs = [_run(tmp_path, task, [0.0, 40.0, 50.0 + n, 90.0], failed=1) for n, task in enumerate(AVERAGED)]
    runs.append(_run(tmp_path, "wnli", [99.0]))
    assert cli.main(["glue", *runs]) == 0
    assert "average of 8 tasks: 53.50" in capsys.readouterr().out


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [_run(tmp_path, task, [50.0]) for task in list(AVERAGED)[:-1]]
    assert cli.main(["glue", *runs]) == 2
    assert "needs the scores of rte too" in capsys.readouterr().err
    assert cli.main(["glue", *runs, runs[0]]) == 2
    assert "two of the runs are of cola" in capsys.readouterr().err
    assert cli.main(["glue", str(tmp_path / "none")]) == 2
    assert "run `electra finetune` with this MODEL_DIR first" in capsys.readouterr().err
