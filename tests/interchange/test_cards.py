"""The card of an export, the license that comes and goes, half precision, and the upload to a hub."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import ml_dtypes
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

import electra_jax
from electra_jax.checkpoints import model_dir
from electra_jax.cli import main
from electra_jax.finetuning.start import init_from_checkpoint
from electra_jax.inference.prediction import predict_ids
from electra_jax.interchange.card import ENERGIES
from electra_jax.interchange.source_card import source_facts
from support.finetuned_model import CLASSES, VALUES, text_facts, write_tuned
from support.hf_models import discriminator_in, refusal

PLACE = "/home/anna/runs/mine"
FACTS = {
    "made by": "electra finetune",
    "init from": PLACE,
    "corpus": f"{PLACE}/*.txt",
    "epochs": 3.0,
    "learning rate": 1e-4,
    "seed": 2,
    "scores": {"accuracy": 91.25},
    "scores by split": {"dev": {"matthews": float("nan"), "accuracy": 91.25}, "test": {"accuracy": 90.5, "total": 40}},
    "source": {"license": "apache-2.0", "language": ["de", "no"], "base_model": "org/base"},
}


def exported(folder: Path, *arguments: str, kind: str = "sequence_classification", **fields: Any) -> Path:
    given = {"labels": CLASSES, "task": text_facts("cola", CLASSES, pair=False), "facts": FACTS} | fields
    write_tuned(folder / "model", kind, **given)
    assert main(["export", str(folder / "model"), str(folder / "out"), "--format", "transformers", *arguments]) == 0
    return folder / "out"


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the front matter of a card, and what follows it."""
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), body


def test_what_a_hub_reads(tmp_path: Path) -> None:
    out = exported(tmp_path)
    front, body = card_of(out)
    (model,) = front.pop("model-index")
    assert front == {
        "base_model": "org/base",
        "language": ["de", "no"],
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-classification",
        "tags": ["electra", "replaced-token-detection", "electra-jax"],
    }
    scores = {
        result["dataset"]["split"]: {metric["type"]: metric["value"] for metric in result["metrics"]}
        for result in model["results"]
    }
    # A score that is none, and a count, are no scores.
    assert scores == {"dev": {"accuracy": 91.25}, "test": {"accuracy": 90.5}}
    assert {result["dataset"]["type"] for result in model["results"]} == {"glue"}
    assert {result["dataset"]["config"] for result in model["results"]} == {"cola"}
    for line in ("| epochs | 3.0 |", "| test | accuracy 90.5 |", "| labels | M, m, x |", "| task | cola |"):
        assert line in body
    assert "{" not in body
    for path in out.iterdir():
        assert b"anna" not in path.read_bytes()


@pytest.mark.parametrize(
    ("kind", "tag"), [("pretraining", None), ("encoder", "feature-extraction"), ("regression", "text-classification")]
)
def test_what_a_model_is_for(kind: str, tag: str | None, tmp_path: Path) -> None:
    task = VALUES if kind == "regression" else None
    out = exported(tmp_path, "--license", "mit", "--language", "ko", kind=kind, labels=(), task=task)
    folders = {"discriminator": None, "generator": "fill-mask"} if kind == "pretraining" else {"": tag}
    for name, expected in folders.items():
        front, _ = card_of(out / name)
        assert front.get("pipeline_tag") == expected
        # The command line goes before the source.
        assert (front["license"], front["language"], front["base_model"]) == ("mit", ["ko"], "org/base")
        assert ("model-index" in front) == (kind == "regression")


def test_a_license_comes_along(tmp_path: Path) -> None:
    """From a source's card to its import, what is trained from it, an export, and back."""
    source = discriminator_in(tmp_path)
    front = "---\nlicense: other\nlicense_name: ours\nlanguage: ko\nbase_model: org/base\ntags: [a]\n---\n# Model\n"
    (source / "README.md").write_text(front)
    (source / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]) + "\n")
    assert main(["import", str(source), str(tmp_path / "model")]) == 0
    expected = {"license": "other", "license_name": "ours", "language": "ko", "base_model": "org/base"}
    assert electra_jax.load(tmp_path / "model").description.source == {"source": expected}
    assert init_from_checkpoint(str(tmp_path / "model"), None, None).source == {"source": expected}
    assert model_dir.source_of(str(tmp_path / "model")) == {"source": expected}
    assert model_dir.source_of(None) == model_dir.source_of(str(tmp_path)) == {}
    for name, more in (("out", []), ("other", ["--license", "mit"])):
        assert main(["export", str(tmp_path / "model"), str(tmp_path / name), "--format", "transformers", *more]) == 0
    assert card_of(tmp_path / "out")[0].items() >= expected.items()
    assert "license_name" not in card_of(tmp_path / "other")[0]
    assert main(["import", str(tmp_path / "out"), str(tmp_path / "again")]) == 0
    assert electra_jax.load(tmp_path / "again").description.source == {"source": expected}


@pytest.mark.parametrize(
    ("text", "found", "noted"),
    [
        ("# No front matter\n", {}, False),
        ("---\nlicense: [1, 2]\nlanguage: no\nbase_model: {a: b}\n---\n", {"source": {"language": "no"}}, False),
        ("---\nlicense: " + "x" * 500 + "\n---\n", {}, False),
        ("---\n- a\n---\n", {}, False),
        ("---\nlicense: [mit\n---\n", {}, True),
        ("---\na: &a [x, x]\nlicense: !!python/object/apply:os.system [touch pwned]\n---\n", {}, True),
    ],
)
def test_cards_that_say_nothing(text: str, found: dict[str, Any], noted: bool, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    facts, notes = source_facts(tmp_path)
    assert (facts, bool(notes)) == (found, noted)


def test_a_model_in_a_cache_of_downloads_has_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "models--org--electra-small-ko/snapshots/0123abcd"
    folder.mkdir(parents=True)
    assert source_facts(folder) == ({"source": {"base_model": "org/electra-small-ko"}}, [])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str, tmp_path: Path) -> None:
    out = exported(tmp_path, "--dtype", dtype)
    assert json.loads((out / "config.json").read_text())["dtype"] == dtype
    kind = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}[dtype]
    stored = load_file(out / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {np.dtype(kind)}
    assert main(["import", str(out), str(tmp_path / "again")]) == 0
    words = electra_jax.load(tmp_path / "model").params["embeddings"]["word_embeddings"]
    again = electra_jax.load(tmp_path / "again").params["embeddings"]["word_embeddings"]
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, words.astype(kind).astype(np.float32))


def test_numbers_that_float16_has_no_place_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tuned(tmp_path / "model", "regression", labels=(), task=VALUES)
    arguments = [tmp_path / "model", tmp_path / "out", "--format", "transformers", "--dtype", "float16"]
    error = refusal(capsys, "export", *arguments)
    assert "classifier.out_proj.bias" in error
    assert "that float16 has no place for: take bfloat16 or float32" in error
    assert not (tmp_path / "out").exists()
    arguments[3] = "tf1"
    assert "--dtype is for --format transformers" in refusal(capsys, "export", *arguments)


def test_numbers_of_electric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are energies, and an import of the export knows it."""
    facts = {"objective": "Electric", "masked share": 0.15}
    out = exported(tmp_path, kind="discriminator", labels=(), task=None, facts=facts)
    assert ENERGIES in capsys.readouterr().err
    assert f"- {ENERGIES}" in (out / "README.md").read_text()
    assert main(["import", str(out), str(tmp_path / "again")]) == 0
    (record,) = predict_ids(electra_jax.load(tmp_path / "again"), [{"input_ids": [2, 5, 3]}], batch_size=1)
    assert record.keys() == {"input_ids", "tokens", "logits"}


class Hub:
    """Stands for the hub's API."""

    endpoint = "hub"
    calls: list[tuple[Any, ...]] = []  # noqa: RUF012  (emptied by the test)

    def whoami(self) -> None:
        self.calls.append(("whoami",))

    def create_repo(self, name: str, *, exist_ok: bool) -> None:
        assert exist_ok
        self.calls.append(("create", name))

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        assert commit_message
        self.calls.append(("upload", repo_id, sorted(path.name for path in folder_path.iterdir())))


def test_pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    Hub.calls.clear()
    out = exported(tmp_path, "--push", "org/mine")
    assert Hub.calls == [
        ("whoami",),
        ("create", "org/mine"),
        ("upload", "org/mine", sorted(path.name for path in out.iterdir())),
    ]
    assert capsys.readouterr().out.endswith("hub/org/mine\n")
    monkeypatch.setattr(Hub, "upload_folder", Hub.create_repo)
    arguments = [tmp_path / "model", tmp_path / "second", "--format", "transformers", "--push", "org/mine"]
    assert "second was written, and not uploaded to org/mine (TypeError" in refusal(capsys, "export", *arguments)
    assert (tmp_path / "second/config.json").exists()


def test_what_cannot_be_pushed_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tuned(tmp_path / "model", "encoder", labels=(), task=None)

    def said(name: str) -> str:
        arguments = [tmp_path / "model", tmp_path / "out", "--format", "transformers", "--push", name]
        return refusal(capsys, "export", *arguments)

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "nobody is logged in to the hub" in said("org/mine")
    assert "give it as ORG/NAME" in said("mine")
    assert "--push org/mine/more: " in said("org/mine/more")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")

    def unreachable(self: Hub) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(Hub, "whoami", unreachable)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert "the hub is not reached (ConnectionError: no route to host): export without --push" in said("org/mine")
    assert not (tmp_path / "out").exists()
