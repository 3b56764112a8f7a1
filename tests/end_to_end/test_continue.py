"""A run that starts from another one's weights, through the command line."""

import json
from pathlib import Path

from support.command_line import electra, reported_steps, small_run


def test_a_run_says_once_where_its_weights_are_from(place: Path, whole: Path, tmp_path: Path) -> None:
    """With embeddings that are shared otherwise; the record outlives a resume, which takes no weights again."""
    outputs = []
    for steps in (2, 4):
        command = small_run(place, tmp_path / "run", INIT_FROM=str(whole), TRAIN_STEPS=steps)
        done = electra([*command, "--gin_file=gin/objectives/gdes.gin"], place / "cache")
        assert done.returncode == 0, done
        outputs.append(done.stdout)
    assert f"weights from {whole}\n  taken: discriminator, embeddings, generator\n  new: nothing\n" in outputs[0]
    assert "weights from" not in outputs[1]
    first, second = json.loads((tmp_path / "run/run.json").read_text())["starts"]
    assert first["weights"]["source"] == str(whole)
    assert first["weights"]["taken"] == ["discriminator", "embeddings", "generator"]
    assert "weights" not in second
    assert reported_steps(tmp_path / "run") == [1, 2, 3, 4]
