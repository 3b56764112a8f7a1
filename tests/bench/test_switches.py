"""The ablation of switches probes as `electra probe` does, and mixes its scores with no other probe's."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from bench import switches
from electra_jax.commands import probe as command
from electra_jax.finetuning import probes
from electra_jax.finetuning.start import Origin
from electra_jax.tasks.tagging.probing import SPLITS, draw_of, probe_sources
from electra_jax.tasks.vocabulary import Vocabulary
from support.finetuned_model import TOKENS
from support.tiny_model import small_encoder


def test_scores_are_those_of_the_products_probe(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    for split, count in (("train", 20), ("test", 6)):
        sentences = (draw.choice(["the", "cat", "sat", "mat"], 5) for _ in range(count))
        lines = ["".join(f"{word} X B-{word[0].upper()}\n" for word in words) for words in sentences]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines))
    settings, encoder = switches.probe_settings(tmp_path), small_encoder()
    assert (settings.num_train_sentences, settings.penalty, settings.max_iterations) == (2000, 10.0, 100)
    origin = Origin(encoder, Vocabulary(TOKENS, True, True), None, {}, "")
    sources = probe_sources(settings.task)
    asked = {
        split: command.ask_split(settings, origin, split, sources.read("chunk", split).examples, draw_of(0, split))
        for split in SPLITS
    }
    params = probes.init_encoder(jax.random.key(0), encoder)
    found = switches.probed(params, encoder, asked, settings)
    shown = command.probe_seed(
        settings, origin, None, {split: sources.read("chunk", split).examples for split in SPLITS}, 0
    )
    assert found["layers"] == shown["layers"]
    assert (found["chunk_accuracy"], found["best_layer"]) == (shown["metrics"]["accuracy"], shown["best_layer"])


def test_lines_of_the_earlier_probe_are_not_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "old.jsonl"
    out.write_text(json.dumps({"objective": "mlm", "arm": "bert", "probe": [58.6, 57.8]}) + "\n")
    given = [str(out), "--corpus=a", "--vocabulary=b", f"--conll2000={tmp_path}", "--flops=1e9"]
    monkeypatch.setattr("sys.argv", ["switches", *given])
    with pytest.raises(SystemExit, match="holds scores of another probe"):
        switches.main()
