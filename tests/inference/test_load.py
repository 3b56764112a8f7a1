"""`electra_jax.load`, and `electra predict` on top of it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import electra_jax
from electra_jax.checkpoints import model_dir, warm_start
from electra_jax.checkpoints.plain_towers import to_plain_towers
from electra_jax.cli import main
from electra_jax.errors import UserError
from electra_jax.inference.network import main_tower_states, outputs
from electra_jax.model.types import Tokens

SUBSET = Path(__file__).parents[1] / "parity" / "data" / "hf" / "subset"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imported discriminator without a vocabulary."""
    path = tmp_path_factory.mktemp("load") / "model"
    assert main(["import", str(SUBSET / "pretraining"), str(path)]) == 0
    return path


def test_import_is_light_and_load_needs_no_tensorflow(directory: Path) -> None:
    program = (
        "import sys, electra_jax\n"
        "assert 'jax' not in sys.modules\n"
        "model = electra_jax.load(sys.argv[1])\n"
        "assert model.logits([[1, 2, 3]]).shape == (1, 3)\n"
        "print([name for name in ('tensorflow', 'seqio', 'torch', 'transformers') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(directory)], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.strip() == "[]"


def test_defaults_are_no_padding_and_one_segment(directory: Path) -> None:
    model = electra_jax.load(directory)
    ids = np.arange(1, 9).reshape(2, 4)
    whole = model.logits(ids, np.ones_like(ids), np.zeros_like(ids))
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(model.logits(ids), whole)
    np.testing.assert_array_equal(model.logits(ids.tolist()), whole)
    # What the mask leaves out is not seen.
    padded = np.concatenate([ids, [[5], [6]]], axis=1)
    mask = np.asarray([[1, 1, 1, 1, 0]] * 2)
    np.testing.assert_allclose(model.logits(padded, mask)[:, :4], whole, rtol=0, atol=1e-6)
    assert np.abs(model.logits(padded)[:, :4] - whole).max() > 1e-3


def test_rows_of_new_lengths_compile_nothing_and_are_as_if_they_were_not_padded(directory: Path) -> None:
    model = electra_jax.load(directory)
    ids = np.arange(1, 10)[None].repeat(2, axis=0)
    lengths = (3, 5, 9)
    found = {
        function.__name__: {length: function(ids[:, :length]) for length in lengths}
        for function in (model.logits, model.hidden_states, model.attentions)
    }
    # One program for logits and one for the states, of 16 tokens.
    assert [compiled._cache_size() for compiled in model._functions.values()] == [1, 1]
    for length in lengths:
        tokens = Tokens(ids[:, :length], np.zeros((2, length), int), np.ones((2, length), int))
        states = main_tower_states(model.description, model.params, tokens)
        expected = {
            "logits": outputs(model.description, model.params, tokens),
            "hidden_states": states.hidden,
            "attentions": states.attentions,
        }
        for name, values in expected.items():
            np.testing.assert_allclose(found[name][length], values, rtol=0, atol=1e-6, err_msg=name)


def test_a_record_that_lacks_a_field_is_refused(directory: Path, tmp_path: Path) -> None:
    """As one that was written before the field was there."""
    older = tmp_path / "older"
    shutil.copytree(directory, older)
    record = json.loads((older / "model.json").read_text())
    assert record["discriminator"].pop("attention") == "exact"
    (older / "model.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"model\.json is not a record that this version writes .*'attention'"):
        electra_jax.load(older)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([[1, 40]],), "0 to 39"),
        (([[1, -1]],), "0 to 39"),
        (([[1, 2]], [[1]]), "attention_mask has shape"),
        (([[1, 2]], None, [[0, 2]]), "token_type_ids goes from 0 to 2"),
        (([1, 2, 3],), "[rows, length]"),
        (([[1, 2], [3]],), "not of one length"),
        (([[1.5, 2.0]],), "integers"),
        (([[1] * 13],), "1 to 12"),
        (([[1, 2]], [[1, 5]]), "attention_mask goes from 1 to 5"),
        (([[1, 2]], [[1, -1]]), "attention_mask goes from -1 to 1"),
        # As 32 bits they would be 1, 5 and 2.
        (([[1, 2**32 + 5]],), "input_ids goes from 1 to 4294967301"),
        (([[2.0**32 + 1.0, 2.0]],), "input_ids goes from 2.0 to 4294967297.0"),
        (([[1, 2]], None, [[0, 2**32]]), "token_type_ids goes from 0 to 4294967296"),
    ],
)
def test_what_would_index_past_a_table_is_refused(directory: Path, arguments: tuple, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        electra_jax.load(directory).logits(*arguments)
    assert sentence in str(refused.value)


def test_what_is_no_model_directory(tmp_path: Path, directory: Path) -> None:
    cases = {
        tmp_path / "nowhere": "no such directory",
        tmp_path: "looked for checkpoints/",
        SUBSET / "pretraining": "electra import",
    }
    (tmp_path / "bare" / "checkpoints").mkdir(parents=True)
    cases[tmp_path / "bare"] = "neither model.json nor config.gin"
    for path, sentence in cases.items():
        with pytest.raises(UserError) as refused:
            electra_jax.load(path)
        assert sentence in str(refused.value)


def test_another_models_record_is_refused(tmp_path: Path, directory: Path) -> None:
    import shutil

    shutil.copytree(directory, tmp_path / "model")
    record = json.loads((tmp_path / "model" / "model.json").read_text())
    record["discriminator"]["intermediate_size"] += 1
    (tmp_path / "model" / "model.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="intermediate/kernel"):
        electra_jax.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("vocab.txt", b"\xff\xfe", r"vocab\.txt cannot be read"),
        ("vocab.json", b"{", r"vocab\.json.*: the record of the casing of the vocabulary"),
        ("vocab.json", b"{}", r"vocab\.json.*: the record of the casing of the vocabulary"),
    ],
)
def test_a_damaged_vocabulary_is_named(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        model_dir.read_vocabulary(tmp_path)


def test_start_from_fills_by_name_and_says_what_is_new(directory: Path) -> None:
    stored = electra_jax.load(directory).params
    fresh = jax.tree.map(lambda leaf: jax.numpy.zeros_like(leaf), stored)
    fresh["head"] = {"prediction": {"bias": jax.numpy.ones(3)}}
    del fresh["discriminator"]["head"]
    start = warm_start.start_from(directory, fresh)
    assert start.fresh == ["head/prediction/bias"]
    assert all(name.startswith("discriminator/head/") for name in start.unused)
    assert len(start.unused) == 4
    np.testing.assert_array_equal(
        start.params["embeddings"]["word_embeddings"], stored["embeddings"]["word_embeddings"]
    )
    fresh["embeddings"]["word_embeddings"] = jax.numpy.zeros((41, 8))
    with pytest.raises(UserError, match=r"\(40, 8\) there, \(41, 8\) here"):
        warm_start.start_from(directory, fresh)


class TestFold:
    """Variants of pre-training as plain towers."""

    def test_disentangled_embeddings_are_summed(self) -> None:
        draw = np.random.default_rng(0)
        names = ("word_embeddings", "position_embeddings", "token_type_embeddings")
        common, own = ({name: draw.standard_normal((3, 2)) for name in names} for _ in range(2))
        common["layer_norm"], own["layer_norm"] = {"scale": 1}, {"scale": 2}
        main_tower = {"encoder": "E", "head": {"dense": 1, "prediction": 2}, "embeddings": own}
        params = {
            "embeddings": common,
            "discriminator": main_tower,
            "generator": {"encoder": "G", "head": {"output_bias": 3}},
        }
        kind, folded = to_plain_towers(params)
        assert kind == "pretraining"
        np.testing.assert_array_equal(
            folded["embeddings"]["word_embeddings"], common["word_embeddings"] + own["word_embeddings"]
        )
        assert folded["embeddings"]["layer_norm"] == {"scale": 2}
        assert folded["generator"]["embeddings"] is common

    def test_one_encoder_serves_both_towers(self) -> None:
        tied = {
            "embeddings": "T",
            "discriminator": {"encoder": "E", "head": {"dense": 1, "prediction": 2}},
            "generator": {"head": {"output_bias": 3}},
        }
        kind, folded = to_plain_towers(tied)
        assert kind == "pretraining"
        assert folded["generator"] == {"encoder": "E", "head": {"output_bias": 3}}
        bert = {**tied, "discriminator": {"encoder": "E"}}
        assert to_plain_towers(bert) == (
            "generator",
            {"embeddings": "T", "generator": {"encoder": "E", "head": {"output_bias": 3}}},
        )

    def test_two_tower_and_uniform_generators_are_left_out(self) -> None:
        main_tower = {"encoder": "E", "head": {"dense": 1, "prediction": 2}}
        plain = {"embeddings": "T", "discriminator": main_tower}
        assert to_plain_towers(plain) == ("discriminator", plain)
        assert to_plain_towers({**plain, "generator": {"ltr": 1, "rtl": 2, "head": 3}}) == ("discriminator", plain)


class TestPredict:
    def run(self, directory: Path, tmp_path: Path, text: str) -> list[dict]:
        (tmp_path / "in.jsonl").write_text(text, encoding="utf-8")
        output = tmp_path / "out.jsonl"
        assert main(["predict", str(directory), str(tmp_path / "in.jsonl"), "--output", str(output)]) == 0
        return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]

    def test_rows_of_different_lengths(self, directory: Path, tmp_path: Path) -> None:
        records = self.run(directory, tmp_path, '[1, 2, 3, 4, 5]\n\n{"input_ids": [7, 8]}\n')
        assert records.pop(1) == {"index": 1, "error": "line 2: an empty line"}
        model = electra_jax.load(directory)
        for record, ids in zip(records, ([1, 2, 3, 4, 5], [7, 8]), strict=True):
            assert record["input_ids"] == ids
            logits = model.logits([ids])[0]
            np.testing.assert_allclose(record["logits"], logits, rtol=0, atol=1e-6)
            np.testing.assert_allclose(record["replaced_probability"], 1 / (1 + np.exp(-logits)), rtol=0, atol=1e-6)

    def test_text(self, tmp_path: Path) -> None:
        import shutil

        source = Path(shutil.copytree(SUBSET / "pretraining", tmp_path / "source"))
        words = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            "the",
            "cat",
            "##s",
            "sat",
            *(chr(97 + n) for n in range(26)),
        ]
        words += [f"[unused{n}]" for n in range(40 - len(words))]
        (source / "vocab.txt").write_text("\n".join(words) + "\n")
        assert main(["import", str(source), str(tmp_path / "model")]) == 0
        lines = '"The cats sat"\n{"text": "The cat", "text_pair": "sat"}\n"[MASK] cat"\n'
        first, second, third = self.run(tmp_path / "model", tmp_path, lines)
        assert first["tokens"] == ["[CLS]", "the", "cat", "##s", "sat", "[SEP]"]
        assert second["tokens"] == ["[CLS]", "the", "cat", "[SEP]", "sat", "[SEP]"]
        model = electra_jax.load(tmp_path / "model")
        pair = model.logits([second["input_ids"]], None, [[0, 0, 0, 0, 1, 1]])
        np.testing.assert_allclose(second["logits"], pair[0], rtol=0, atol=1e-6)
        # Text cannot inject a special token.
        assert "[MASK]" not in third["tokens"]

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("hello", "no vocabulary"),
            ('{"input_ids": [1, "x"]}', "no list of integers"),
            ('{"other": 1}', "neither input_ids nor text"),
            ("{broken", "not JSON"),
            ("[1, 99]", "0 to 39"),
        ],
    )
    def test_what_cannot_be_read(
        self, text: str, sentence: str, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "in.txt").write_text(text)
        assert main(["predict", str(directory), str(tmp_path / "in.txt")]) == 2
        assert sentence in capsys.readouterr().err
