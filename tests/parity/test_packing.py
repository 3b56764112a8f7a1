"""Compare the original's two-segment packing with every recorded run, example by example and draw by draw."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from electra_jax.tasks.host_tensorflow import tf
from electra_jax.tasks.original.packing import OriginalPacker
from electra_jax.tasks.pretraining.packing import Example
from electra_jax.tasks.vocabulary import load_vocabulary
from support.shared import ORACLE, skipped

ROOT = ORACLE / "build_pretraining"
PUBLISHED = {"one_segment_share": 0.1, "random_length_share": 0.05}


class RecordingRandom:
    """Remember draws in the form in which they were recorded.

    Not a subclass of Random: one that overrides `random` draws its integers in another way.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.draws: list[list[Any]] = []

    def random(self) -> float:
        self.draws.append(["random", self._rng.random()])
        return self.draws[-1][-1]

    def randint(self, a: int, b: int) -> int:
        self.draws.append(["randint", a, b, self._rng.randint(a, b)])
        return self.draws[-1][-1]


def found(kind: str) -> list[tuple[Path, dict[str, Any]]]:
    """Return the records that hold `kind`, anywhere below the oracle's folder, with their paths."""
    records = [(path, json.loads(path.read_text())) for path in sorted(ROOT.rglob("*.json"))]
    return [(path, record) for path, record in records if isinstance(record, dict) and kind in record]


def runs() -> list[Any]:
    cases = [
        pytest.param(
            path, record, run, id=f"{path.stem}-{run['max_length']}-{run['seed']}-{run['blanks_separate_docs']}"
        )
        for path, record in found("runs")
        for run in record["runs"]
    ]
    return cases or [skipped(ROOT, None, None, None)]


def writers() -> list[Any]:
    cases = [pytest.param(path, record, id=path.stem) for path, record in found("num_out_files")]
    return cases or [skipped(ROOT, None, None)]


@pytest.mark.parametrize(("path", "record", "run"), runs())
def test_run(path: Path, record: dict[str, Any], run: dict[str, Any]) -> None:
    vocabulary = load_vocabulary(str(path.parent / record["vocab"]), lowercase=None)
    rng = RecordingRandom(random.Random(run["seed"]))
    packer = OriginalPacker(
        length=run["max_length"], cls_id=vocabulary.cls_id, sep_id=vocabulary.sep_id, rng=rng, **PUBLISHED
    )
    lines = path.with_name("corpus.txt").read_bytes().decode().split("\n")[: record["n_lines"]]
    examples = []

    def check(example: Example | None, target: int) -> None:
        if example is None:
            return
        recorded = run["examples"][len(examples)]
        assert example == (recorded["ids"], recorded["seg"])
        assert target == recorded["target_length_used"]
        assert packer.target == recorded["target_length_next"]
        assert rng.draws == recorded["draws"]
        rng.draws.clear()
        examples.append(example)

    for line, ids in zip(lines, record["line_token_ids"], strict=True):
        assert vocabulary.encode(line.strip()) == ids
        target = packer.target
        if line.strip():
            check(packer.add(ids), target)
        elif run["blanks_separate_docs"]:
            check(packer.end_document(), target)
    check(packer.end_document(), packer.target)
    assert len(examples) == run["n_examples"]
    given = sum(len(ids) for ids in record["line_token_ids"])
    kept = sum(len(e.input_ids) - 2 - (1 in e.token_type_ids) for e in examples)
    assert packer.discarded == given - kept


@pytest.mark.parametrize(("path", "record"), writers())
def test_files_of_the_original_writer(path: Path, record: dict[str, Any]) -> None:
    with open(path.with_name("example_builder.json")) as file:
        vocabulary = load_vocabulary(str(path.parent / json.load(file)["vocab"]), lowercase=None)
    folder = path.with_name("writer")
    rng = RecordingRandom(random.Random(record["seed"]))
    length = record["max_length"]
    packer = OriginalPacker(length=length, cls_id=vocabulary.cls_id, sep_id=vocabulary.sep_id, rng=rng, **PUBLISHED)
    packed: list[Example] = []
    for text in sorted((folder / "corpus").iterdir()):
        for line in map(str.strip, text.read_bytes().decode().split("\n")):
            example = packer.add(vocabulary.encode(line)) if line else packer.end_document()
            packed += [example] if example else []
        last = packer.end_document()
        packed += [last] if last else []
    assert len(packed) == record["n_written"]
    assert rng.draws == record["draws"]
    files = record["files"]
    for number, name in enumerate(files):
        ours = packed[number :: record["num_out_files"]]
        assert [(e.input_ids, e.token_type_ids) for e in ours] == [(e["ids"], e["seg"]) for e in files[name]]
        written = [
            tf.train.Example.FromString(raw).features.feature
            for raw in tf.data.TFRecordDataset(str(folder / "out" / name)).as_numpy_iterator()
        ]
        assert len(written) == len(ours)
        for features, (ids, types) in zip(written, ours, strict=True):
            padding = [0] * (length - len(ids))
            assert list(features["input_ids"].int64_list.value) == ids + padding
            assert list(features["segment_ids"].int64_list.value) == types + padding
            assert list(features["input_mask"].int64_list.value) == [1] * len(ids) + padding
