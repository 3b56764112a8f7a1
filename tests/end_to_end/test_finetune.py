"""`electra finetune`, `evaluate` and `predict` of each family of tasks, from a pre-training run and official files."""

import inspect
import json
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import jax
import pytest

import electra_jax
from electra_jax.checkpoints import model_dir
from electra_jax.checkpoints.model_dir import write_model
from electra_jax.cli import main
from electra_jax.tasks import seqio_export
from support.command_line import WORDS
from support.finetuned_model import write_tuned
from support.tuned_runs import (
    DRAW,
    NOUNS,
    OTHERS,
    SETTINGS,
    VERBS,
    best_of,
    electra,
    evaluated,
    predictions_of,
    sentence,
    settings_of,
    tune,
)

pytestmark = pytest.mark.usefixtures("compilations")


def scored_file(folder: Path, task: str, predictions: Path, **macros: Any) -> dict[str, float]:
    """The scores of a file of predictions, without a model."""
    places = {"TASK": task, "DATA_DIR": str(folder), "PREDICTIONS": str(predictions)}
    electra("evaluate", OUTPUT=str(folder / "file.json"), **places, **macros)
    return json.loads((folder / "file.json").read_text())["metrics"]


def test_classification(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "CoLA").mkdir()
    texts = [(sentence(NOUNS if label else VERBS, 6), label) for label in [0, 1] * 50]
    lines = [f"src\t{label}\t\t{text}" for text, label in texts]
    (tmp_path / "CoLA/train.tsv").write_text("\n".join(lines[:79]) + "\n")
    (tmp_path / "CoLA/dev.tsv").write_text("\n".join(lines[79:]) + "\n")
    test = [f"{number}\t{text}" for number, (text, _) in enumerate(texts[:13])]
    (tmp_path / "CoLA/test.tsv").write_text("\n".join(["index\tsentence", *test]) + "\n")
    results = tune(whole, tmp_path, "cola", NUM_SEEDS=2)
    said = capsys.readouterr().out
    # Read by name, and each of the three is said; the generator stays where it is.
    assert "weights from" in said
    assert re.search(r"new: .*head/prediction", said)
    assert re.search(r"left: .*generator", said)
    # 79 rows are five batches of 16; every one of the 21 dev examples is scored, in batches of 8.
    assert results["num_examples"] == {"train": 79, "dev": 21}
    assert "the dev split has only 21 examples; each is 5 % of it, and a score of 100.00 may be luck" in caplog.text
    assert [seed["steps"] for seed in results["seeds"]] == [40, 40]
    assert [point["step"] for point in results["seeds"][0]["curve"]] == [12, 24, 36, 40]
    assert results["summary"]["matthews"]["n"] == 2 - results["num_failed"]
    assert results["summary"]["matthews"]["best"] == 100.0
    for name in ("results.json", "report.html", "predictions.jsonl", "seeds/0/metrics.jsonl", "seeds/1/tensorboard"):
        assert (tmp_path / "run" / name).exists(), name
    assert len((tmp_path / "run/predictions.jsonl").read_text().splitlines()) == 21
    # The same command again does nothing; rows of another length, or another vocabulary, are another run.
    settings = SETTINGS | settings_of(whole, tmp_path, "cola") | {"NUM_SEEDS": 2}
    again = [f"--gin.{name}={value!r}" for name, value in settings.items()]
    assert main(["finetune", *again]) == 0
    assert "step" not in capsys.readouterr().out.partition("dev:")[2].partition("cola")[0]
    assert main(["finetune", *again, "--gin.MAX_SEQ_LENGTH=16"]) == 2
    assert "(MAX_SEQ_LENGTH 32 there, 16 here): use another MODEL_DIR" in capsys.readouterr().err
    record = tmp_path / "run/run.json"
    kept = record.read_text()
    record.write_text(re.sub(r"(vocabulary's hash\": \")....", r"\1beef", kept))
    assert main(["finetune", *again]) == 2
    assert "(INIT_FROM has another vocabulary by now)" in capsys.readouterr().err
    record.write_text(kept)
    # Labels that were corrected since are other data, and the scores are not theirs.
    for split, name in (("train", "training"), ("dev", "dev")):
        file = tmp_path / f"CoLA/{split}.tsv"
        content = file.read_text()
        file.write_text(content.replace("\t1\t", "\t0\t", 1))
        assert main(["finetune", *again]) == 2
        assert f"holds another run (the {name} file has changed): use another MODEL_DIR" in capsys.readouterr().err
        file.write_text(content)
    # Only a start that trains is recorded.
    assert main(["finetune", *again, "--gin.LOG_EVERY=7"]) == 0
    capsys.readouterr()
    assert record.read_text() == kept
    assert "LOG_EVERY = 7" not in (tmp_path / "run/config.gin").read_text()
    # The best checkpoint is the model.
    assert evaluated(tmp_path)["metrics"] == best_of(results)
    electra("predict", MODEL_DIR=str(tmp_path / "run"), SPLIT="test")
    submission = (tmp_path / "run/predictions/CoLA.tsv").read_text().splitlines()
    assert submission == ["index\tprediction", *(f"{number}\t{label}" for number, (_, label) in enumerate(texts[:13]))]
    capsys.readouterr()
    # Longer than a file's name may be.
    long_text = sentence(NOUNS, 200)
    electra("predict", long_text, MODEL_DIR=str(tmp_path / "run"))
    said = capsys.readouterr()
    assert json.loads(said.out) == {"index": 0} | electra_jax.load(str(tmp_path / "run"))(long_text)[0]
    assert "1 of 1 texts, 85 % of tokens, cut at 32" in caplog.text


def test_weights_that_changed_since_are_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of an encoder that was trained on: its scores are not those of the run that is there."""
    start = write_tuned(tmp_path / "start", "discriminator", labels=(), task=None)
    rows = "".join(f"the {word},{word}\n" for word in ("cat", "dog") * 20)
    (tmp_path / "train.csv").write_text(f"text,label\n{rows}")
    columns = {"TRAIN_FILE": str(tmp_path / "train.csv"), "TEXT_COLUMN": "text", "LABEL_COLUMN": "label"}
    settings = SETTINGS | settings_of(start, tmp_path, "classification") | columns | {"EPOCHS": 1, "NUM_SEEDS": 1}
    electra("finetune", **settings)
    electra("finetune", **settings)
    results = (tmp_path / "run/results.json").read_text()
    model = model_dir.load(start)
    shutil.rmtree(start)
    start.mkdir()
    params = jax.tree.map(lambda leaf: 1.01 * leaf, model.params)
    write_model(start, model.description, {"params": params}, step=4, vocabulary=model.vocabulary)
    capsys.readouterr()
    assert main(["finetune", *(f"--gin.{name}={value!r}" for name, value in settings.items())]) == 2
    assert (
        "run holds another run (INIT_FROM has other weights by now): use another MODEL_DIR" in capsys.readouterr().err
    )
    assert (tmp_path / "run/results.json").read_text() == results


def test_texts_whose_last_word_decides(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, number in (("train", 320), ("dev", 20)):
        kinds = [NOUNS, VERBS] * (number // 2)
        rows = [f"{sentence(OTHERS, 20)} {sentence(words, 6)},{words[0]}" for words in kinds]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    columns = {"TEXT_COLUMN": "text", "LABEL_COLUMN": "label", "MAX_SEQ_LENGTH": 16, "EVALUATE_EVERY": 40}
    cut = tune(whole, tmp_path, "classification", **columns, EPOCHS=0.5)
    said = capsys.readouterr().out
    assert "train: 320 of 320 texts, 46 % of tokens, cut at 16: fine-tune with a larger MAX_SEQ_LENGTH" in said
    assert cut["cut"]["dev"] == {
        "length": 16,
        "texts": 20,
        "num_texts": 20,
        "tokens": 240,
        "num_tokens": 520,
        "unit": "texts",
    }
    assert "dev: 20 of 20 texts, 46 % of tokens, cut at 16" in (tmp_path / "run/report.html").read_text()
    assert evaluated(tmp_path)["cut"] == cut["cut"]["dev"]
    assert best_of(cut)["accuracy"] < 80
    (tmp_path / "run").rename(tmp_path / "cut")
    windows = tune(whole, tmp_path, "classification", **columns, LONG_TEXTS="windows")
    assert windows["cut"] == {}
    assert best_of(windows)["accuracy"] > 90
    assert evaluated(tmp_path)["metrics"] == best_of(windows)


def test_regression(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "STS-B").mkdir()
    head = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
    lines = []
    for number in range(60):
        words, score = (NOUNS, 5.0) if number % 2 else (VERBS, 0.0)
        pair = sentence(words, 3), sentence(words, 3)
        lines.append("\t".join([str(number), *"gfyoss", *pair, f"{score:.3f}"]))
    (tmp_path / "STS-B/train.tsv").write_text("\n".join([f"{head}\tscore", *lines[:40]]) + "\n")
    (tmp_path / "STS-B/dev.tsv").write_text("\n".join([f"{head}\tscore", *lines[40:]]) + "\n")
    test = [line.rpartition("\t")[0] for line in lines[40:47]]
    (tmp_path / "STS-B/test.tsv").write_text("\n".join([head, *test]) + "\n")
    results = tune(whole, tmp_path, "stsb", EPOCHS=10)
    assert results["num_examples"] == {"train": 80, "dev": 20}  # in both orders
    assert results["main_metric"] == "spearman"
    assert results["summary"]["spearman"]["best"] > 60
    assert evaluated(tmp_path)["metrics"] == pytest.approx(best_of(results), abs=1e-6)
    electra("predict", MODEL_DIR=str(tmp_path / "run"), SPLIT="test")
    header, *rows = (tmp_path / "run/predictions/STS-B.tsv").read_text().splitlines()
    assert header == "index\tprediction"
    assert [row.split("\t")[0] for row in rows] == [str(number) for number in range(7)]
    assert all(re.fullmatch(r"\d+\t-?\d\.\d{3}", row) for row in rows)
    # What transformers reads has no interval, and says the same.
    electra("export", str(tmp_path / "run"), str(tmp_path / "out"), "--format", "transformers")
    electra("import", str(tmp_path / "out"), str(tmp_path / "again"))
    pairs = [(sentence(NOUNS, 3), sentence(VERBS, 3)), (sentence(NOUNS, 3), sentence(NOUNS, 3))]
    ours, theirs = (electra_jax.load(str(tmp_path / name))(pairs) for name in ("run", "again"))
    assert [found["value"] for found in theirs] == pytest.approx([found["value"] for found in ours], abs=1e-5)


def test_tagging(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chunk").mkdir()

    def tagged() -> str:
        # A word tells its tag, whatever stands beside it.
        lines = []
        for _ in range(3):
            lines += [f"{DRAW.choice(NOUNS)} X B-NP"]
            lines += [f"{word} X I-NP" for word in DRAW.choices(OTHERS, k=DRAW.randint(0, 2))]
            lines += [f"{DRAW.choice(VERBS)} X B-VP"]
        return "\n".join([*lines, ". . O"]) + "\n"

    for split, number in (("train", 48), ("dev", 13), ("test", 5)):
        (tmp_path / f"chunk/{split}.txt").write_text("\n".join(tagged() for _ in range(number)))
    results = tune(whole, tmp_path, "chunk", EPOCHS=40, EVALUATE_EVERY=60)
    assert results["num_examples"] == {"train": 48, "dev": 13, "test": 5}
    assert list(best_of(results)) == ["f1", "precision", "recall", "accuracy"]
    assert results["summary"]["f1"]["best"] > 40
    of_model = evaluated(tmp_path)["metrics"]
    assert of_model == best_of(results)
    # The last checkpoint counts, and the test split, which has tags, is scored beside the dev split.
    (seed,) = results["seeds"]
    assert (results["selection"], results["split"], seed["best_step"]) == ("last", "dev", seed["steps"])
    assert seed["scores_by_split"] == {"dev": of_model, "test": evaluated(tmp_path, "test")["metrics"]}
    assert results["other_splits"]["test"]["f1"]["median"] == seed["scores_by_split"]["test"]["f1"]
    said = capsys.readouterr().out
    for title in ("chunk (13 dev examples), the last checkpoint", "chunk (5 test examples), the last checkpoint"):
        assert title in said
    electra("predict", MODEL_DIR=str(tmp_path / "run"), SPLIT="dev")
    capsys.readouterr()
    assert scored_file(tmp_path, "chunk", tmp_path / "run/predictions/chunk_dev.txt") == of_model
    assert f"FB1: {of_model['f1']:6.2f}" in capsys.readouterr().out


def test_question_answering(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "squad_v2").mkdir()

    def questions(name: str, number: int) -> dict[str, Any]:
        entries = []
        for index in range(number):
            context, word = sentence(NOUNS, 12), DRAW.choice(NOUNS)
            impossible = index % 3 == 0
            place = DRAW.randrange(12)
            words = context.split()
            start = len(" ".join(words[:place])) + (place > 0)
            answers = [] if impossible else [{"text": words[place], "answer_start": start}]
            question = sentence(VERBS, 2) if impossible else word
            qas = [{"id": f"{name}{index}", "question": question, "answers": answers, "is_impossible": impossible}]
            entries.append({"title": name, "paragraphs": [{"context": context, "qas": qas}]})
        return {"version": "v2.0", "data": entries}

    for split, number in (("train", 40), ("dev", 13)):
        (tmp_path / f"squad_v2/{split}.json").write_text(json.dumps(questions(split, number)))
    # Windows of 16 tokens: three or so of each context.
    results = tune(whole, tmp_path, "squad_v2", EPOCHS=4, MAX_SEQ_LENGTH=16, DOC_STRIDE=4, MAX_QUESTION_LENGTH=4)
    assert results["main_metric"] == "best_f1"
    said = capsys.readouterr().out
    note = "no class for the head joint_question_answering: fine-tune with QA_HEAD = 'transformers'"
    assert note in said.partition("train:")[2].partition("step")[0], "before training"
    best = best_of(results)
    assert best["total"] == 13
    assert best["f1"] == pytest.approx(best["best_f1"])
    assert best["f1"] > 30
    assert evaluated(tmp_path)["metrics"] == pytest.approx(best, abs=1e-4)
    electra("predict", MODEL_DIR=str(tmp_path / "run"), SPLIT="dev")
    predictions = tmp_path / "run/predictions"
    answers = json.loads((predictions / "predictions.json").read_text())
    odds = json.loads((predictions / "null_odds.json").read_text())
    nbest = json.loads((predictions / "nbest.json").read_text())
    assert answers.keys() == odds.keys() == nbest.keys() == {f"dev{index}" for index in range(13)}
    # The threshold that fine-tuning found is the one that withholds answers.
    withheld = {name for name, value in odds.items() if value > results["null_threshold"]}
    assert {name for name, answer in answers.items() if answer == ""} == withheld
    found = scored_file(tmp_path, "squad_v2", predictions / "predictions.json")
    assert (found["exact"], found["f1"]) == (best["exact"], best["f1"])


def test_labels_that_differ_only_in_case(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fine-tuning, evaluation and prediction say the same, also of a run in bfloat16: all three compute in float32."""
    for split, number in (("train", 80), ("dev", 21)):
        rows = [(sentence(NOUNS if row % 3 else VERBS, 6), "M" if row % 3 else "m") for row in range(number)]
        (tmp_path / f"{split}.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    results = tune(
        whole, tmp_path, "classification", TEXT_COLUMN="text", LABEL_COLUMN="label", DTYPE="bfloat16", EPOCHS=10
    )
    best = best_of(results)
    assert best["accuracy"] > 90
    assert evaluated(tmp_path)["metrics"] == best
    electra("predict", MODEL_DIR=str(tmp_path / "run"), SPLIT="dev")
    records = predictions_of(tmp_path, "predictions.jsonl")
    split = predictions_of(tmp_path, "predictions/classification_dev.jsonl")
    alone = electra_jax.load(str(tmp_path / "run"))([record["text_a"] for record in records])
    for record, of_split, of_text in zip(records, split, alone, strict=True):
        for found in (of_split, of_text):
            assert found["label"] == record["prediction"]["label"]
            assert found["probabilities"] == pytest.approx(record["prediction"]["probabilities"], abs=1e-6)


def test_types_that_differ_only_in_case(whole: Path, tmp_path: Path) -> None:
    """Entities `PER` and `per` are two types, here as there; one half of the dev split chooses, and one is reported."""
    for split, number in (("train", 64), ("dev", 13)):
        lines = [
            f"{DRAW.choice(words)} B-{kind}\n{DRAW.choice(OTHERS)} O\n"
            for _ in range(number)
            for words, kind in DRAW.sample([(NOUNS, "PER"), (VERBS, "per")], 2)
        ]
        (tmp_path / f"{split}.txt").write_text(
            "\n".join("".join(lines[row : row + 2]) for row in range(0, len(lines), 2))
        )
    results = tune(whole, tmp_path, "tagging", EPOCHS=40, EVALUATE_EVERY=40, SELECTION="best")
    assert best_of(results)["f1"] > 60
    assert (results["selection"], results["split"]) == ("best", "dev_report")
    assert results["num_examples"] == {"train": 64, "dev_selection": 6, "dev_report": 7}
    (seed,) = results["seeds"]
    # The checkpoint of the highest score on the half that chooses; of equal ones the last.
    chosen = max(seed["curve"], key=lambda point: (point["f1"], point["step"]))
    assert (seed["best_step"], seed["chosen_by"]) == (chosen["step"], {"dev_selection": chosen["f1"]})
    model = electra_jax.load(str(tmp_path / "run"))
    records = predictions_of(tmp_path, "predictions.jsonl")
    assert len(records) == 7
    for record in records:
        assert model([record["words"]])[0]["tags"] == record["prediction"]["tags"]


def test_a_task_of_seqios_registry(
    repository: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines that `seqio_export` and docs/seqio.md show, found through a Gin file that imports them."""
    _, _, code = inspect.cleandoc(seqio_export.__doc__ or "").partition("by its name:\n")
    code = textwrap.dedent(code)
    assert code.strip() in (repository / "docs" / "seqio.md").read_text()
    (tmp_path / "weather.py").write_text(code)
    (tmp_path / "weather.gin").write_text("from __gin__ import dynamic_registration\nimport weather\n")
    for split, number in (("train", 48), ("dev", 9)):
        lines = [f"{sentence(WORDS[20 * (row % 3) :][:20], 4)}\t{row % 3}\n" for row in range(number)]
        (tmp_path / f"{split}.tsv").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = {"MODEL_DIR": str(tmp_path / "run")}
    settings = SETTINGS | {"INIT_FROM": str(whole), "TASK": "weather", "EPOCHS": 20, "EVALUATE_EVERY": 30}
    electra("finetune", "--gin_file=weather.gin", **settings, **model)
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["summary"]["accuracy"]["best"] > 60
    # A model directory is read as data: it may not import the module of its task, but a file of the user's may.
    capsys.readouterr()
    for command in (["predict", WORDS[0]], ["evaluate"]):
        assert main([*command, f"--gin.MODEL_DIR={str(tmp_path / 'run')!r}"]) == 2
        assert "imports weather" in capsys.readouterr().err
    assert evaluated(tmp_path, "dev", "--gin_file=weather.gin")["metrics"] == best_of(results)
    capsys.readouterr()
    electra("predict", "--gin_file=weather.gin", WORDS[0], **model)
    assert json.loads(capsys.readouterr().out)["label"] in "012"
