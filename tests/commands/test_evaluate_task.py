"""`electra evaluate` on downstream tasks, with and without a model, and `electra predict` of a split."""

import json
from pathlib import Path

import pytest

import electra_jax
from electra_jax.cli import main
from support.finetuned_model import QA, QUESTION, TAGGING, TAGS, text_facts, write_tuned

RTE = ("entailment", "not_entailment")
MNLI = ("contradiction", "entailment", "neutral")
PAIRS = [("the cat sat", "the dog ran"), ("john", "paris"), ("a b c", "d"), ("home", "who ran home"), ("mat", "z z z")]
SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "paragraphs": [
                {
                    "context": QUESTION["context"],
                    "qas": [
                        {"id": "a", "question": "Who sat?", "answers": [{"text": "John", "answer_start": 0}]},
                        {"id": "b", "question": "Who ran?", "answers": [{"text": "The dog", "answer_start": 21}]},
                        {"id": "c", "question": "Who flew?", "answers": [], "is_impossible": True},
                    ],
                }
            ]
        }
    ],
}
CHUNKS = "John B-PER\nran O\n\nthe O\ncats O\nin O\nParis B-LOC\n\nJohn B-PER\nParis I-PER\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data in the public layouts, and a model of each kind."""
    path = tmp_path_factory.mktemp("evaluate")
    for name in ("RTE", "MNLI", "squad_v2", "ner"):
        (path / "data" / name).mkdir(parents=True)
    rows = [f"{index}\t{a}\t{b}" for index, (a, b) in enumerate(PAIRS)]
    gold = ["entailment", "not_entailment", "entailment", "entailment", "not_entailment"]
    with_gold = [f"{row}\t{label}" for row, label in zip(rows, gold, strict=True)]
    head = "index\tsentence1\tsentence2"
    (path / "data/RTE/dev.tsv").write_text("\n".join([f"{head}\tlabel", *with_gold]) + "\n")
    (path / "data/RTE/test.tsv").write_text("\n".join([head, *rows]) + "\n")
    for split, number in (("dev_matched", 3), ("dev_mismatched", 2), ("test_matched", 3), ("test_mismatched", 2)):
        lines = ["\t".join(map(str, range(12)))]
        lines += ["\t".join([str(row), *"1234567", a, b, "x", "neutral"]) for row, (a, b) in enumerate(PAIRS[:number])]
        (path / f"data/MNLI/{split}.tsv").write_text("\n".join(lines) + "\n")
    (path / "data/MNLI/diagnostic.tsv").write_text("\n".join([head, *rows]) + "\n")
    (path / "data/squad_v2/dev.json").write_text(json.dumps(SQUAD))
    (path / "data/ner/dev.txt").write_text(CHUNKS)
    kind = "sequence_classification"
    write_tuned(path / "rte", kind, labels=RTE, task=text_facts("rte", RTE, pair=True))
    # As `electra finetune` records its run.
    (path / "rte/config.gin").write_text(
        "from __gin__ import dynamic_registration\nfrom electra_jax.tasks import task_options\n"
        f"DATA_DIR = '{path / 'data'}'\nTASK = 'rte'\nMODEL_DIR = '/elsewhere'\nTRAIN_STEPS = 7\n"
        "task_options.TaskOptions:\n  task = %TASK\n  data_dir = %DATA_DIR\n  examples_per_class = %TRAIN_STEPS\n"
        "  tfds_data_dir = %MODEL_DIR\n"
    )
    write_tuned(path / "mnli", kind, labels=MNLI, task=text_facts("mnli", MNLI, pair=True))
    write_tuned(path / "answers", "question_answering", labels=(), task=QA | {"null_threshold": 0.0})
    write_tuned(path / "tags", "token_classification", labels=TAGS, task=TAGGING)
    return path


def bindings(**values: object) -> list[str]:
    return [f"--gin.{name}={str(value)!r}" for name, value in values.items()]


def evaluation(path: Path) -> dict:
    return json.loads(path.read_text())


def test_every_example_of_a_fine_tuned_model_is_scored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five examples in batches of two; the data is where the run's config.gin says, the model where we say."""
    assert main(["evaluate", *bindings(MODEL_DIR=folder / "rte"), "--gin.BATCH_SIZE=2"]) == 0
    found = evaluation(folder / "rte/evaluation.json")
    labels = [record["label"] for record in electra_jax.load(folder / "rte")(PAIRS)]
    gold = ["entailment", "not_entailment", "entailment", "entailment", "not_entailment"]
    right = sum(one == other for one, other in zip(labels, gold, strict=True))
    assert found["metrics"] == {"accuracy": 100 * right / 5}
    assert (found["task"], found["split"], found["num_examples"], found["step"]) == ("rte", "dev", 5, 3)
    assert str(100 * right / 5) in capsys.readouterr().out


def test_a_submission(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = bindings(MODEL_DIR=folder / "rte", SPLIT="test", OUTPUT_DIR=tmp_path / "out")
    assert main(["predict", *arguments]) == 0
    labels = [record["label"] for record in electra_jax.load(folder / "rte")(PAIRS)]
    lines = [f"{index}\t{label}" for index, label in enumerate(labels)]
    assert (tmp_path / "out/RTE.tsv").read_text() == "\n".join(["index\tprediction", *lines]) + "\n"
    # The same rows are those of dev, whose labels are public.
    options = bindings(TASK="rte", DATA_DIR=folder / "data", PREDICTIONS=tmp_path / "out/RTE.tsv")
    assert main(["evaluate", *options]) == 0
    assert main(["evaluate", *bindings(MODEL_DIR=folder / "rte", OUTPUT=tmp_path / "own.json")]) == 0
    assert evaluation(tmp_path / "out/RTE.tsv.metrics.json")["metrics"] == evaluation(tmp_path / "own.json")["metrics"]
    (tmp_path / "out/RTE.tsv").write_text("index\tprediction\n0\tentailment\n")
    assert main(["evaluate", *options]) == 2
    assert "predicts 1 rows, but the dev split of rte has 5" in capsys.readouterr().err


def test_both_halves_of_mnli_and_the_diagnostic_set(folder: Path, tmp_path: Path) -> None:
    model = bindings(MODEL_DIR=folder / "mnli", DATA_DIR=folder / "data")
    assert main(["evaluate", *model]) == 0
    splits = evaluation(folder / "mnli/evaluation.json")["splits"]
    assert {name: split["num_examples"] for name, split in splits.items()} == {"dev_matched": 3, "dev_mismatched": 2}
    assert main(["predict", *model, *bindings(SPLIT="test", OUTPUT_DIR=tmp_path)]) == 0
    assert main(["predict", *model, *bindings(SPLIT="test", TASK="ax", OUTPUT_DIR=tmp_path)]) == 0
    lines = {path.name: len(path.read_text().splitlines()) for path in tmp_path.iterdir()}
    assert lines == {"MNLI-m.tsv": 4, "MNLI-mm.tsv": 3, "AX.tsv": 6}
    labels = [record["label"] for record in electra_jax.load(folder / "mnli")(PAIRS)]
    assert [line.split("\t")[1] for line in (tmp_path / "AX.tsv").read_text().splitlines()[1:]] == labels


def test_answers_with_the_stored_threshold(folder: Path, tmp_path: Path) -> None:
    model = bindings(MODEL_DIR=folder / "answers", DATA_DIR=folder / "data", TASK="squad_v2")
    assert main(["predict", *model, "--gin.MAX_SEQ_LENGTH=16", *bindings(SPLIT="dev", OUTPUT_DIR=tmp_path)]) == 0
    answers, odds, nbest = (evaluation(tmp_path / f"{name}.json") for name in ("predictions", "null_odds", "nbest"))
    assert {name: answer == "" for name, answer in answers.items()} == {name: odds[name] > 0.0 for name in "abc"}
    assert all(answers[name] in ("", nbest[name][0]["text"]) for name in "abc")
    assert main(["evaluate", *model, "--gin.MAX_SEQ_LENGTH=16"]) == 0
    own = evaluation(folder / "answers/evaluation.json")["metrics"]
    # Without the model, from the files, answers to every question and the same threshold.
    (tmp_path / "all.json").write_text(json.dumps({name: nbest[name][0]["text"] for name in "abc"}))
    files = {"PREDICTIONS": tmp_path / "all.json", "NULL_ODDS": tmp_path / "null_odds.json"}
    options = bindings(TASK="squad_v2", DATA_DIR=folder / "data", **files)
    assert main(["evaluate", *options, "--gin.NULL_THRESHOLD=0.0"]) == 0
    assert evaluation(tmp_path / "all.json.metrics.json")["metrics"] == own


def test_answers_without_a_model(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """a: "John sat" shares one of two words with "John": F1 2/3; b: no answer is wrong; c: none is given."""
    file = tmp_path / "pred.json"
    file.write_text(json.dumps({"a": "John sat", "b": ""}))
    options = bindings(TASK="squad_v2", DATA_DIR=folder / "data", PREDICTIONS=file)
    assert main(["evaluate", *options]) == 0
    metrics = evaluation(tmp_path / "pred.json.metrics.json")["metrics"]
    assert metrics["total"] == 2
    assert metrics["exact"] == 0
    assert metrics["f1"] == pytest.approx(100 * (2 / 3) / 2)
    assert "no answer to 1 of 3 questions, such as 'c'" in capsys.readouterr().out.replace("\n", " ")


def test_tags_as_columns(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = bindings(MODEL_DIR=folder / "tags", DATA_DIR=folder / "data", TASK="ner")
    assert main(["predict", *model, *bindings(SPLIT="dev", OUTPUT_DIR=tmp_path)]) == 0
    lines = (tmp_path / "ner_dev.txt").read_text().split("\n")
    assert [line.rpartition(" ")[0] for line in lines] == CHUNKS.split("\n")
    found = electra_jax.load(folder / "tags")([["the", "cats", "in", "Paris"]])[0]
    assert [line.rpartition(" ")[2] for line in lines[3:7]] == found["tags"]
    assert main(["evaluate", *model]) == 0
    capsys.readouterr()
    assert main(["evaluate", *bindings(TASK="ner", PREDICTIONS=tmp_path / "ner_dev.txt")]) == 0
    assert "processed 8 tokens with 3 phrases" in capsys.readouterr().out
    metrics = evaluation(tmp_path / "ner_dev.txt.metrics.json")["metrics"]
    assert metrics == evaluation(folder / "tags/evaluation.json")["metrics"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"MODEL_DIR": "{folder}/rte", "SPLIT": "test"}, "the test split of rte has no labels to score against"),
        ({"MODEL_DIR": "{folder}/rte", "SPLIT": "held_out"}, "rte has no held_out split"),
        ({"MODEL_DIR": "{folder}/rte", "TASK": "rta"}, "There is no task 'rta'; the nearest: rte"),
        ({"MODEL_DIR": "{folder}/rte", "TASK": "mnli"}, "it was fine-tuned on another task"),
        ({"MODEL_DIR": "{folder}/rte", "TASK": "squad_v2"}, "a task of question answering"),
        ({"MODEL_DIR": "{folder}/rte", "SPLITS": "dev"}, "did you mean SPLIT?"),
        ({"MODEL_DIR": "{folder}/mnli"}, "DATA_DIR is not set"),
        ({"TASK": "rte"}, "set MODEL_DIR to a fine-tuned model, or PREDICTIONS"),
        ({"PREDICTIONS": "pred.json"}, "does not say its task"),
        ({"TASK": "rte", "PREDICTIONS": "{folder}/none.tsv", "DATA_DIR": "{folder}/data"}, "none.tsv cannot be read"),
        ({"TASK": "rte", "MODEL_DIR": "{folder}/rte", "NULL_ODDS": "x"}, "set PREDICTIONS too"),
        ({"MODEL_DIR": "{folder}/data"}, "config.gin does not exist"),
    ],
)
def test_mistakes(changes: dict[str, str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled = {name: value.format(folder=folder) for name, value in changes.items()}
    assert main(["evaluate", *bindings(**filled)]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1
