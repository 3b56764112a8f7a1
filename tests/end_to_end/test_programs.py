"""How many programs a fine-tuning compiles: one to train and one to evaluate for each length of rows."""

import collections
from pathlib import Path

from support.command_line import electra
from support.tuned_runs import DRAW, NOUNS, SETTINGS, VERBS, settings_of

LENGTHS = (8, 16, 24, 32)


def test_a_length_is_compiled_once_to_train_and_once_to_evaluate(whole: Path, tmp_path: Path) -> None:
    for split, number in (("train", 64), ("dev", 32)):
        # As many rows of each length, of which [CLS] and [SEP] take two places.
        rows = [DRAW.choices(NOUNS if row % 2 else VERBS, k=LENGTHS[row // 2 % 4] - 3) for row in range(number)]
        lines = [f"{' '.join(words)},{row % 2}" for row, words in enumerate(rows)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    macros = (
        SETTINGS | settings_of(whole, tmp_path, "classification") | {"TEXT_COLUMN": "text", "LABEL_COLUMN": "label"}
    )
    macros |= {"BUCKETS": LENGTHS, "NUM_SEEDS": 2, "BATCH_SIZE": 4, "EVALUATION_BATCH_SIZE": 4, "EPOCHS": 2}
    cache = tmp_path / "cache"
    done = electra(["finetune", *(f"--gin.{name}={value!r}" for name, value in macros.items())], cache)
    assert done.returncode == 0, done
    names = collections.Counter(path.name.rpartition("-")[0].rpartition("-")[0] for path in cache.rglob("jit_*-cache"))
    assert (names["jit_updates"], names["jit_forward"]) == (len(LENGTHS), len(LENGTHS))
    # What is left makes weights, keys and metrics, each of one shape or two.
    assert all(number <= 2 for name, number in names.items() if name not in ("jit_updates", "jit_forward"))
