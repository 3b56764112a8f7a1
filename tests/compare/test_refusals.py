"""`electra compare`: what cannot be compared is refused in a sentence, and nothing is written."""

from pathlib import Path
from typing import Any

import pytest

from support.comparison import refusal


@pytest.mark.parametrize(
    ("macros", "sentence"),
    [
        ({"VARIANTS": [("mlm",), ("mlm", "DROPOUT = 0.0")]}, "VARIANTS names 'mlm' twice: give each its own name"),
        ({"VARIANTS": [("../up",)]}, "VARIANTS names '../up', which also names a folder: use letters"),
        ({"VARIANTS": [("random",)]}, "VARIANTS names 'random', which electra compare keeps for itself"),
        ({"TASKS": [("pretrain", "TASK = 'rte'")]}, "TASKS names 'pretrain', which electra compare keeps for itself"),
        ({"TASKS": ["probe_ner"]}, "TASK is 'ner': a probe is one of chunk, pos, words"),
        ({"VARIANTS": [("a", "DROPOUT")]}, "VARIANTS has 'DROPOUT': an override is a Gin file or NAME = VALUE"),
        ({"VARIANTS": [3]}, "VARIANTS has 3: an entry is a name and its overrides"),
        ({"VARIANTS": "mlm"}, "VARIANTS (comparison.ComparisonRun.variants) is 'mlm': it must be list"),
        ({"VARIANTS": []}, "VARIANTS is empty"),
        (
            {"PRETRAINING": "gin/models/tiny.gin"},
            "(comparison.ComparisonRun.pretraining) is 'gin/models/tiny.gin': it must",
        ),
        ({"VARIANTS": [("a", "TRAIN_STEPS = 3")]}, "a binds TRAIN_STEPS, which electra compare sets itself"),
        ({"FINETUNING": ["SEED = 3"]}, "FINETUNING binds SEED, which electra compare sets itself: leave it out"),
        ({"FLOPS": 2e7}, "FLOPS 2e+07 makes less than one step of 'electra' at the fraction 0.2 (a step is 1.165e+07"),
        (
            {"FLOPS": 6e7, "FRACTIONS": (0.2, 0.25, 1.0)},
            "the fractions 0.2 and 0.25 of FLOPS 6e+07 are both step 1 of 'electra': leave one out, or raise FLOPS",
        ),
        ({"FLOPS": -1.0}, "FLOPS (comparison.ComparisonRun.flops) is -1.0: it must be positive"),
        ({"FRACTIONS": (0.0, 1.0)}, "FRACTIONS has 0.0: a fraction of the budget is above 0 and at most 1"),
        ({"FRACTIONS": (0.5, 1.5)}, "FRACTIONS has 1.5: a fraction of the budget is above 0 and at most 1"),
        ({"FRACTIONS": (10**400,)}, "0: a fraction of the budget is above 0 and at most 1"),
        (
            {"NUM_SEEDS": 10**9},
            "NUM_SEEDS (comparison.ComparisonRun.num_seeds) is 1000000000: it must be from 1 to 10000",
        ),
        ({"FRACTIONS": (1.0, 0.5)}, "FRACTIONS is (1.0, 0.5): it must rise"),
        ({"FRACTIONS": (0.5, 0.5)}, "FRACTIONS is (0.5, 0.5): it must rise"),
        ({"FRACTIONS": ()}, "FRACTIONS is (): it must be a list of numbers"),
        ({"TASKS": ["colla"]}, "There is no task 'colla'; the nearest: cola"),
        (
            {"VARIANTS": [("a", "gin/objectives/ml.gin")]},
            "'a': no Gin file gin/objectives/ml.gin in the working folder",
        ),
        ({"VARIANTS": [("a", "DROPOT = 0.0")]}, "'a': --gin.DROPOT=0.0: no macro DROPOT is used by the Gin files; did"),
        (
            {"TASKS": [("rte", "EPOCHS = 'x'")]},
            "'rte': EPOCHS (finetune_run.FinetuningRun.epochs) is 'x'",
        ),
        (
            {"PRETRAINING_SEEDS": 0},
            "PRETRAINING_SEEDS (comparison.ComparisonRun.pretraining_seeds) is 0: it must be from",
        ),
        ({"COOL_DOWN": 1.5}, "COOL_DOWN (comparison.ComparisonRun.cool_down) is 1.5: it must be above 0 and at most 1"),
        (
            {"COOL_DOWN": 0.9},
            "the run of 'electra' at the fraction 0.2 has 17 steps: its learning rate would fall over the last 15, and "
            "the warm-up, or the branch before, ends at step 2: lower COOL_DOWN",
        ),
        ({"TUNE": ((1e-3,),)}, "TUNE is ((0.001,),): it must be two lists of numbers, learning rates and warm-ups"),
        ({"TUNE": (1e-3, 2e-3)}, "TUNE is (0.001, 0.002): it must be two lists of numbers"),
        ({"TUNE": ((2e-3, 1e-3), (0.1,))}, "TUNE has (0.002, 0.001): it must rise"),
        ({"TUNE": ((0.0,), (0.1,))}, "learning rates are above 0, and warm-ups are shares of the steps"),
        ({"TUNE": ((1e-3,), (1.0,))}, "learning rates are above 0, and warm-ups are shares of the steps"),
        ({"TUNE": ((1e-3,), (0.1,))}, "mlm binds LEARNING_RATE, which TUNE sets itself: leave it out"),
        ({"COOL_DOWN": 0.2, "PRETRAINING": ("LR_DECAY_SHARE = 0.5",)}, "PRETRAINING binds LR_DECAY_SHARE, which COOL"),
        (
            {"TUNE": ((1e-3,), (0.1,)), "TUNE_SHARE": 1e-3, "VARIANTS": ["electra"]},
            "TUNE_SHARE 0.001 of FLOPS 1e+09 makes less than one step of 'electra' (a step is 1.165e+07 FLOPs): raise",
        ),
        ({"NUM_SEEDS": 0}, "NUM_SEEDS (comparison.ComparisonRun.num_seeds) is 0: it must be from 1 to 10000"),
        ({"PROCESSES": 0}, "PROCESSES (comparison.ComparisonRun.processes) is 0: it must be from 1 to 10000"),
        (
            {"WARMUP_FRACTION": 1.5},
            "WARMUP_FRACTION (comparison.ComparisonRun.warmup_fraction) is 1.5: it must be from 0 to 1",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], macros: dict[str, Any], sentence: str
) -> None:
    assert sentence in refusal(capsys, tmp_path / "run", **macros)
    assert not (tmp_path / "run").exists()
