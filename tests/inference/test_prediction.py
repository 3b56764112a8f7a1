"""What a model says of raw text: `load(path)(texts)` and `electra predict`."""

import dataclasses
import functools
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy.special import softmax

import electra_jax
from electra_jax.checkpoints import model_dir
from electra_jax.checkpoints.model_dir import Loaded, write_model
from electra_jax.cli import main
from electra_jax.errors import UserError
from electra_jax.inference.api import Model
from electra_jax.tasks.answering import label_order, predict_rows
from electra_jax.tasks.catalog import task_from_facts
from electra_jax.tasks.vocabulary import Vocabulary
from support.finetuned_model import QA, QUESTION, TAGGING, TAGS, TOKENS, text_facts, write_tuned

LABELS = ("bad", "fair", "good")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prediction")
    write_tuned(path / "one", "sequence_classification", labels=LABELS, task=text_facts("own", LABELS, pair=False))
    write_tuned(path / "pairs", "sequence_classification", labels=LABELS, task=text_facts("two", LABELS, pair=True))
    write_tuned(path / "imported", "sequence_classification", labels=LABELS, task=None)
    write_tuned(path / "value", "regression", labels=(), task=None)
    write_tuned(path / "tags", "token_classification", labels=TAGS, task=TAGGING)
    write_tuned(path / "plain_tags", "token_classification", labels=("NOUN", "VERB"), task=None)
    write_tuned(path / "answers", "question_answering", labels=(), task=QA)
    for kind in ("discriminator", "generator", "pretraining"):
        write_tuned(path / kind, kind, labels=(), task=None)
    return path


@functools.cache
def load(path: Path) -> Model:
    return electra_jax.load(path)


def ids(words: str) -> list[int]:
    return [TOKENS.index(word) for word in words.split()]


def test_a_vocabulary_without_a_special_token_reads_no_text() -> None:
    assert Vocabulary(TOKENS, lowercase=True, strip_accents=True).encode_batch(["The cats"]) == [ids("the cat ##s")]
    with pytest.raises(UserError, match=r"lacks \[MASK\]"):
        _ = Vocabulary(TOKENS[:4], lowercase=True, strip_accents=True).tokenizer


@pytest.mark.parametrize("kind", ["one", "answers", "tags", "pretraining"])
def test_outputs_that_are_no_numbers_are_no_answers(folder: Path, tmp_path: Path, kind: str) -> None:
    """Of weights that overflow: JSON has no NaN, and the likeliest of NaNs is nobody's answer."""
    model = model_dir.load(folder / kind)
    (tmp_path / "model").mkdir()
    params = jax.tree.map(lambda leaf: np.full_like(leaf, 1e38), model.params)
    write_model(tmp_path / "model", model.description, {"params": params}, step=1, vocabulary=model.vocabulary)
    asked = electra_jax.load(tmp_path / "model")
    for value in (QUESTION if kind == "answers" else "the cat sat", {"input_ids": ids("[CLS] the cat [SEP]")}):
        (tmp_path / "in.jsonl").write_text(json.dumps(value) + "\n")
        assert (
            main(["predict", str(tmp_path / "model"), str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "o")]) == 2
        )
    with pytest.raises(
        UserError, match="the model's outputs are NaN or infinite, which are no numbers: its weights are"
    ):
        asked(QUESTION if kind == "answers" else "the cat sat")


class TestClassification:
    def test_probabilities_are_those_of_the_logits(self, folder: Path) -> None:
        model = load(folder / "one")
        (found,) = model("The cats sat.")
        expected = softmax(model.logits([ids("[CLS] the cat ##s sat . [SEP]")])[0])
        assert found["label"] == LABELS[expected.argmax()]
        assert list(found["probabilities"]) == list(LABELS)
        np.testing.assert_allclose(list(found["probabilities"].values()), expected, rtol=0, atol=1e-6)

    def test_batched_or_alone_and_in_order(self, folder: Path) -> None:
        model = load(folder / "one")
        draw = np.random.default_rng(0)
        texts = [" ".join(draw.choice(["cat", "dog", "ran", "mat"], int(draw.integers(0, 20)))) for _ in range(13)]
        together = model(texts, batch_size=5)
        alone = [model(text)[0] for text in texts]
        assert len({tuple(record["probabilities"].values()) for record in alone}) > 8
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(
                list(one["probabilities"].values()), list(other["probabilities"].values()), rtol=0, atol=1e-6
            )

    def test_pairs(self, folder: Path) -> None:
        model = load(folder / "pairs")
        tokens = ids("[CLS] the cat [SEP] the dog ran [SEP]")
        expected = softmax(model.logits([tokens], None, [[0, 0, 0, 0, 1, 1, 1, 1]])[0])
        forms: list[Any] = [("the cat", "the dog ran"), {"text": "the cat", "text_pair": "the dog ran"}]
        for form in forms:
            (found,) = model(form)
            np.testing.assert_allclose(list(found["probabilities"].values()), expected, rtol=0, atol=1e-6)
        with pytest.raises(UserError, match=r"input 2 is 'the cat': this model reads two texts"):
            model([forms[0], "the cat"])
        with pytest.raises(UserError, match=r"input 1 is .*: this model reads one text"):
            load(folder / "one")(forms[0])

    def test_an_imported_model_reads_what_it_is_given(self, folder: Path) -> None:
        imported, one, two = (load(folder / name) for name in ("imported", "one", "pairs"))
        assert imported("the cat") == one("the cat")
        assert imported(("the cat", "ran")) == two(("the cat", "ran"))
        mixed = imported(["the cat", ("the cat", "ran")])
        assert [record["label"] for record in mixed] == [
            imported(value)[0]["label"] for value in ("the cat", ("the cat", "ran"))
        ]
        value = load(folder / "value")
        logit = float(value.logits([ids("[CLS] the cat [SEP]")])[0, 0])
        assert not 0 <= logit <= 1
        assert value("the cat")[0] == {"value": pytest.approx(logit, abs=1e-6)}

    def test_labels_that_differ_only_in_case_are_two(self, tmp_path: Path) -> None:
        labels = ("M", "m", "x")
        write_tuned(
            tmp_path / "case", "sequence_classification", labels=labels, task=text_facts("own", labels, pair=False)
        )
        model = electra_jax.load(tmp_path / "case")
        (found,) = model("the cat sat .")
        expected = softmax(model.logits([ids("[CLS] the cat sat . [SEP]")])[0])
        assert list(found["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-6)
        turned = task_from_facts(text_facts("own", ("m", "x", "M"), pair=False), model.pieces)
        assert label_order(turned, labels) == [1, 2, 0]

    def test_outputs_of_one_name_are_one_label(self, folder: Path) -> None:
        """As taggers of transformers have them, exported from tags of more letters."""
        task = task_from_facts(
            TAGGING | {"labels": ["B-PER", "I-PER", "O"], "scheme": None}, load(folder / "tags").pieces
        )
        examples = task.raw_examples(["the cat"])
        rows = task.rows(examples, training=False)
        logits = np.array([[9, 0, 0, 0, 0], [1, 2, 0, 3, 0], [0, 1, 3, 1, 2], [9, 0, 0, 0, 0]], np.float32)
        (found,) = predict_rows(
            task, examples, rows, lambda _: [{"logits": logits}], labels=("O", "I-PER", "I-PER", "B-PER", "B-PER")
        )
        assert found.tags == ("B-PER", "I-PER")
        # Logits of B, I and O: 3, 2 and 1 at the first word, 2, 3 and 0 at the second.
        expected = [softmax([3.0, 2.0, 1.0]).max(), softmax([2.0, 3.0, 0.0]).max()]
        assert found.probabilities == pytest.approx(expected)

    def test_labels_are_found_by_name(self, folder: Path) -> None:
        model = load(folder / "one")
        turned = task_from_facts(text_facts("own", ("Good", "bad", "fair"), pair=False), model.pieces)
        assert label_order(turned, LABELS) == [2, 0, 1]
        other = task_from_facts(text_facts("rte", ("yes", "no", "fair"), pair=False), model.pieces)
        with pytest.raises(UserError, match="fine-tuned on another task"):
            label_order(other, LABELS)


def test_tags_are_those_of_first_pieces(folder: Path) -> None:
    model = load(folder / "tags")
    found, same = model([["The", "cats", "ran"], "The cats ran"])
    assert found == same
    logits = model.logits([ids("[CLS] the cat ##s ran [SEP]")])[0]
    places = [1, 2, 4]
    np.testing.assert_allclose(found["probabilities"], softmax(logits, axis=-1)[places].max(-1), rtol=0, atol=1e-6)
    assert found["words"] == ["The", "cats", "ran"]
    plain = load(folder / "plain_tags")
    best = plain.logits([ids("[CLS] the cat ##s ran [SEP]")])[0].argmax(-1)[places]
    assert plain("The cats ran")[0]["tags"] == [("NOUN", "VERB")[number] for number in best]


class TestQuestions:
    def test_answers_are_of_the_context(self, folder: Path) -> None:
        model = load(folder / "answers")
        found, again = model([QUESTION, QUESTION | {"id": "x"}])
        assert found["answer"]
        assert found["answer"] in QUESTION["context"]
        assert found == again
        assert len(found["nbest"]) == 5
        assert found["probability"] == found["nbest"][0]["probability"] > found["nbest"][1]["probability"]

    def test_the_stored_threshold_withholds(self, folder: Path) -> None:
        model = load(folder / "answers")
        (found,) = model(QUESTION)
        for above, answer in ((1.0, found["answer"]), (-1.0, "")):
            facts = {"task": QA | {"null_threshold": found["null_odds"] + above}}
            described = dataclasses.replace(model.description, facts=facts)
            careful = Model(Loaded(described, model.params, model.vocabulary, 0))
            assert careful(QUESTION)[0]["answer"] == answer


class TestPretrained:
    def test_replaced_tokens(self, folder: Path) -> None:
        model = load(folder / "discriminator")
        first, second = model(["the cat [MASK]", ("the cat", "ran")])
        logits = model.logits([ids("[CLS] the cat [SEP] ran [SEP]")], None, [[0, 0, 0, 0, 1, 1]])[0]
        np.testing.assert_allclose(second["replaced_probability"], 1 / (1 + np.exp(-logits)), rtol=0, atol=1e-6)
        assert second["tokens"] == ["[CLS]", "the", "cat", "[SEP]", "ran", "[SEP]"]
        # Without a generator a text holds no mask.
        assert "[MASK]" not in first["tokens"]
        assert "fillings" not in first

    def test_fillings(self, folder: Path) -> None:
        generator = load(folder / "generator")
        masked = ids("[CLS] the [MASK] sat [MASK] [SEP]")
        probabilities = softmax(generator.logits([masked])[0], axis=-1)
        (found,) = generator("the [MASK] sat [MASK]")
        assert found["input_ids"] == masked
        assert [place["position"] for place in found["fillings"]] == [2, 4]
        for place in found["fillings"]:
            likely = np.sort(probabilities[place["position"]])[::-1][:5]
            best = int(probabilities[place["position"]].argmax())
            assert place["candidates"][0]["token"] == TOKENS[best]
            np.testing.assert_allclose([one["probability"] for one in place["candidates"]], likely, rtol=0, atol=1e-6)

    def test_a_pair_fills_in_and_judges(self, folder: Path) -> None:
        model = load(folder / "pretraining")
        (found,) = model("the [MASK] sat")
        masked = ids("[CLS] the [MASK] sat [SEP]")
        filled = int(model.generator_logits([masked])[0, 2].argmax())
        assert found["input_ids"] == [*masked[:2], filled, *masked[3:]]
        logits = model.logits([found["input_ids"]])[0]
        np.testing.assert_allclose(found["logits"], logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("one", [3], "input 1 is 3: this model reads a text"),
        ("one", 3, "the input is of type int"),
        ("one", ["a", {"other": "b"}], "input 2 is an object with neither"),
        ("one", [["a", "b", "c"]], "a pair of texts"),
        ("answers", "who sat?", "input 1 has no question and no context"),
        ("answers", {"question": "who sat?"}, "input 1 has no context"),
        ("answers", {"question": "who sat?", "context": 3}, "context is 3, and must be a text"),
        ("tags", [["a", 3]], "this model tags"),
    ],
)
def test_what_cannot_be_read(folder: Path, name: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        load(folder / name)(value)
    assert sentence in str(refused.value)


def test_nothing_gives_nothing(folder: Path) -> None:
    assert load(folder / "one")([]) == []


class TestCommand:
    def lines(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict]:
        assert main(["predict", *arguments]) == 0
        records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [record.pop("index") for record in records] == list(range(len(records)))
        return records

    def test_the_model_by_either_way_and_the_input_by_every_way(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = str(folder / "one")
        expected = load(folder / "one")(["the cat sat", "", "dogs ran"])
        alone = load(folder / "one")("the cat sat")
        assert self.lines(capsys, model, "the cat sat") == alone
        bound = f'--gin.MODEL_DIR="{model}"'
        assert self.lines(capsys, bound, '{"text": "the cat sat"}') == alone
        (tmp_path / "in").write_text("the cat sat\n\ndogs ran\n")
        assert self.lines(capsys, bound, str(tmp_path / "in")) == expected
        for arguments in ([bound], [model, "-", "--batch_size", "1"]):
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"the cat sat\n\ndogs ran\n")))
            found = self.lines(capsys, *arguments)
            assert [record["label"] for record in found] == [record["label"] for record in expected]

    def test_ids_and_text_in_one_file(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "in.jsonl").write_text('[2, 5, 3]\n"the cat"\n{"input_ids": [2, 3]}\n["the", "cat"]\n')
        first, second, third, fourth = self.lines(capsys, str(folder / "imported"), str(tmp_path / "in.jsonl"))
        model = load(folder / "imported")
        assert [first["input_ids"], third["input_ids"]] == [[2, 5, 3], [2, 3]]
        np.testing.assert_allclose(first["logits"], model.logits([[2, 5, 3]])[0], rtol=0, atol=1e-6)
        assert [second, fourth] == model(["the cat", ("the", "cat")])

    def test_questions_and_words(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (found,) = self.lines(capsys, str(folder / "answers"), json.dumps(QUESTION))
        assert found == load(folder / "answers")(QUESTION)[0]
        (found,) = self.lines(capsys, str(folder / "tags"), '["the", "cats"]')
        assert found["words"] == ["the", "cats"]

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            ([], "needs a model"),
            (["{folder}/one", "the", "cat"], "put a sentence in quotes"),
            (['--gin.MODEL_DIR="{folder}/one"', "{folder}/one", "x"], "already given by MODEL_DIR"),
            (["{folder}/one", "missing.txt"], "missing.txt cannot be read"),
            (["{folder}/one", "--gin.SPLT='dev'", "x"], "did you mean SPLIT?"),
            (["{folder}/one", "--gin.SPLIT='dev'", "x"], "give one of them"),
            (["{folder}/nowhere", "x y"], "is not a model directory"),
            (["{folder}/one", "--batch_size", "0", "x"], "BATCH_SIZE (scoring_run.PredictionRun.batch_size) is 0"),
            (["{folder}/answers", "{input}"], "none of the 2 inputs could be answered; line 1 has no context"),
            (["{folder}/one", "reviews.parquet"], "reviews.parquet cannot be read"),
            (["{folder}/one", "my reviews.CSV"], "my reviews.CSV cannot be read"),
            (["{folder}/one", "{folder}"], "is a folder"),
            (["{folder}/discriminator", "--gin.SPLIT='dev'"], "answers no task"),
            (["{folder}/imported", "--gin.SPLIT='dev'"], "set TASK"),
            (["{folder}/imported", "--gin.SPLIT='dev'", "--gin.TASK='mnly'"], "nearest: mnli"),
        ],
    )
    def test_mistakes(
        self, arguments: list[str], sentence: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "in.txt").write_text('{"question": "who?"}\n{"question": \n')
        filled = [one.format(folder=folder, input=tmp_path / "in.txt") for one in arguments]
        assert main(["predict", *filled]) == 2
        said = capsys.readouterr().err
        assert sentence in said
        assert len(said.splitlines()) == 1


def test_without_tensorflow(folder: Path) -> None:
    program = (
        "import sys, electra_jax\n"
        "from electra_jax.cli import main\n"
        "folder, question = sys.argv[1], {'question': 'who sat?', 'context': 'john sat'}\n"
        "inputs = {'one': 'the cat', 'tags': 'the cat', 'answers': question, 'discriminator': 'the cat'}\n"
        "for name, value in inputs.items():\n"
        "    assert len(electra_jax.load(folder + '/' + name)(value)) == 1\n"
        "assert main(['predict', folder + '/one', 'the cat']) == 0\n"
        "print([name for name in ('tensorflow', 'seqio', 'torch', 'transformers') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
