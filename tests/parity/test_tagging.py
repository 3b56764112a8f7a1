"""Compare spans, encodings, features and scores of tagging with every recorded case."""

import json
from pathlib import Path
from typing import Any

import pytest

from electra_jax.tasks.original.tagging import RULES, observed_labels, read_spans, word_pieces
from electra_jax.tasks.tagging.conlleval import evaluate_tags
from electra_jax.tasks.tagging.sentences import (
    encoded_tags,
    read_tagged_file,
    tagging_features,
    tags_of,
)
from electra_jax.tasks.vocabulary import Vocabulary, load_vocabulary
from support.shared import ORACLE, skipped

ROOT = ORACLE / "finetune"


def records(pattern: str) -> list[Any]:
    found = [pytest.param(path, id=path.stem) for path in sorted(ROOT.rglob(pattern))]
    return found or [skipped(ROOT / pattern)]


@pytest.mark.parametrize("path", records("tagging_utils*.json"))
def test_spans_and_encodings(path: Path) -> None:
    recorded = json.loads(path.read_text())
    assert recorded["cases"]
    for case in recorded["cases"]:
        spans = read_spans(case["tags"])
        assert [list(span) for span in spans] == case["spans"], case["tags"]
        for encoding in case.keys() - {"tags", "spans"}:
            assert tags_of(spans, len(case["tags"]), encoding=encoding) == case[encoding], (case["tags"], encoding)
            assert encoded_tags(case["tags"], spans_of=read_spans, encoding=encoding) == case[encoding]
    # Where the original stops with an error, we do not.
    assert read_spans([]) == []
    assert [span.type for span in read_spans(["B-X-Y", "O"])] == ["X-Y"]


def vocabulary_of(path: Path) -> Vocabulary:
    return load_vocabulary(str(path.parent / "data/vocab.txt"), lowercase=True)


def same_words(path: Path, recorded: dict[str, Any]) -> Path | None:
    """Write the column file from which the record was made."""
    words = [tuple(example["words"]) for example in recorded["examples"]]
    for candidate in sorted((path.parent / "data/finetuning_data").glob("*/*.txt")):
        file = read_tagged_file(candidate, word_column=0, tag_column=-1, scheme="IOBES", skip_bad_rows=False)
        if [sentence.words for sentence in file.examples] == words:
            return candidate
    return None


@pytest.mark.parametrize("path", records("tagging_features*.json"))
def test_features(path: Path) -> None:
    vocabulary = vocabulary_of(path)
    for key, recorded in json.loads(path.read_text()).items():
        if not key.startswith("L"):
            continue
        length = int(key[1:])
        assert recorded["examples"]
        for example in recorded["examples"]:
            words = example["words"]
            pieces = word_pieces(["[CLS]", *words, "[SEP]"], vocabulary)
            assert [[vocabulary.tokens[i] for i in ids] for ids in pieces] == example["words_to_tokens"]
            features = tagging_features(
                words,
                example["label_ids"],
                vocabulary=vocabulary,
                length=length,
                rules=RULES,
            )
            theirs = {name.removeprefix("chunk_"): value for name, value in example["features"].items()}
            used = int(sum(theirs["labels_mask"]))
            for name, ours, size in (
                ("input_ids", features.input_ids, length),
                ("input_mask", [1] * len(features.input_ids), length),
                ("segment_ids", features.token_type_ids, length),
                ("labeled_positions", features.word_positions, length),
                ("labels_mask", [1] * len(features.word_positions), length),
            ):
                assert ours + [0] * (size - len(ours)) == theirs[name], (key, name, words)
            assert features.label_ids == theirs["labels"][:used]


@pytest.mark.parametrize("path", records("tagging_features*.json"))
def test_labels_of_the_column_files(path: Path) -> None:
    recorded = json.loads(path.read_text())
    longest = recorded[max((key for key in recorded if key.startswith("L")), key=lambda key: int(key[1:]))]
    file = same_words(path, longest)
    assert file is not None
    sentences = [
        sentence
        for name in ("train", "dev", "test")
        if (other := file.with_name(f"{name}.txt")).exists()
        for sentence in read_tagged_file(
            other, word_column=0, tag_column=-1, scheme="IOBES", skip_bad_rows=False
        ).examples
    ]
    labels = observed_labels([sentences], "BIOES")
    assert {label: i for i, label in enumerate(labels)} == longest["label_mapping"]
    read = read_tagged_file(file, word_column=0, tag_column=-1, scheme="IOBES", skip_bad_rows=False).examples
    for sentence, example in zip(read, longest["examples"], strict=True):
        tags = encoded_tags(sentence.tags, spans_of=read_spans, encoding="BIOES")
        assert [labels.index(tag) for tag in tags] == example["label_ids"]


@pytest.mark.parametrize("path", records("tagging_metrics*.json"))
def test_scores(path: Path) -> None:
    recorded = json.loads(path.read_text())
    labels = sorted(recorded["label_mapping"], key=recorded["label_mapping"].get)
    lengths = [round(sum(update["labels_mask"])) for update in recorded["updates"]]
    gold, predicted = (
        [[labels[i] for i in update[name][:n]] for update, n in zip(recorded["updates"], lengths, strict=True)]
        for name in ("labels", "predictions")
    )
    scores = evaluate_tags(gold, predicted, spans_of=read_spans)
    # The original adds each sentence's loss twice, and so reports double the mean over words.
    loss = 2 * sum(update["loss"] for update in recorded["updates"]) / sum(lengths)
    theirs = recorded["entity_f1"]
    assert (scores.overall.precision, scores.overall.recall) == (theirs["precision"], theirs["recall"])
    assert scores.overall.f1 == pytest.approx(theirs["f1"], rel=1e-14)
    assert loss == pytest.approx(theirs["loss"], rel=1e-6)
    assert scores.accuracy == recorded["accuracy"]["accuracy"]
    assert loss == pytest.approx(recorded["accuracy"]["loss"], rel=1e-6)
