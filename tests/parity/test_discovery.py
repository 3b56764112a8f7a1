"""Check that a case added to the recorded ones is run, whatever its name, because no test lists cases."""

import os
import subprocess
import sys
from pathlib import Path

from support.shared import ORACLE, existing

# All that a new case of its kind would consist of: a folder, or a file and what stands beside it.
CASES = (
    "hf/tiny/*",
    "tf_pretrain/*.npz",
    "tf_pretrain/config_tables.json",
    "tf_pretrain/init_stats.json",
    "tf_pretrain/eval_metrics.json",
    "tf_pretrain/crashes.json",
    "tf_optim/*.npz",
    "tf_optim/lr_schedules.json",
    "tf_optim/layerwise_multipliers.json",
    "tokenizer/full*.json",
    "build_pretraining/*.json",
    "finetune/*.npz",
    "finetune/[!f]*.json",
    "flops/*.json",
    "mask_stats/*",
)
BESIDE = (".json", ".variables.json")


def link(source: Path, target: Path) -> None:
    """Return a file, or every file of a folder."""
    for path in [source] if source.is_file() else filter(Path.is_file, source.rglob("*")):
        place = target / path.relative_to(source) if path != source else target
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.symlink_to(path.resolve())


def renamed(name: str) -> str:
    """Return another name that still matches the pattern of its kind."""
    stem, dot, suffix = name.partition(".")
    return f"{stem}_added{dot}{suffix}"


def test_a_copy_under_another_name_is_a_new_test(tmp_path: Path) -> None:
    link(existing(ORACLE), tmp_path)
    added = set()
    for pattern in CASES:
        found = sorted(ORACLE.glob(pattern))
        # Another oracle need not have every kind.
        assert found or "ELECTRA_ORACLE" in os.environ, pattern
        for path in found:
            beside = [path.with_name(path.stem + suffix) for suffix in BESIDE if path.suffix == ".npz"]
            for each in (path, *filter(Path.exists, beside)):
                link(each, tmp_path / each.relative_to(ORACLE).with_name(renamed(each.name)))
            added.add(renamed(path.name).partition(".")[0])
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", str(Path(__file__).parent)]
    environment = os.environ | {"ELECTRA_ORACLE": str(tmp_path)}
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert len(added) > 50 or "ELECTRA_ORACLE" in os.environ
    assert sorted(name for name in added if name not in listed) == []
