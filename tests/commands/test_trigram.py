"""`electra trigram`: the words that a probe masks, what stands before them, and how many of them are predicted."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from electra_jax.cli import main
from electra_jax.commands.trigram import contexts_of
from electra_jax.compare.records import ScoredSeeds
from electra_jax.data.trigrams import NONE
from electra_jax.json_files import read_json
from electra_jax.tasks.tagging.probing import Asked, ask, draw_of
from electra_jax.tasks.tagging.sentences import TaggedSentence
from electra_jax.tasks.vocabulary import Vocabulary
from support.finetuned_model import TOKENS

# Two sentences in equal shares, with the same words in the middle.
SENTENCES = [("the", "cat", "sat", "on", "mat"), ("who", "cat", "sat", "in", "paris")]
CLS, SEP, MASK = 2, 3, 4


def test_a_context_is_read_from_the_masked_text() -> None:
    rows = [[CLS, MASK, 9, MASK, MASK, 8, MASK, SEP], [CLS, 9, SEP], [CLS, 9, 8, MASK, SEP]]
    made = [{"input_ids": np.array(row, np.int32)} for row in rows]
    asked = Asked(made, [np.array([1, 3, 4, 6]), np.array([], int), np.array([3])], list("abcde"), 0)
    expected = [[NONE, CLS], [NONE, 9], [9, NONE], [NONE, 8], [9, 8]]
    assert contexts_of(asked, MASK).tolist() == expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trigram")
    (path / "vocab.txt").write_text("\n".join(TOKENS))
    (path / "text.txt").write_text("\n\n".join(" ".join(words) for words in SENTENCES * 30))
    (path / "chunk").mkdir()
    lines = ["".join(f"{word} X B-X\n" for word in words) for words in SENTENCES * 4]
    (path / "chunk/test.txt").write_text("\n".join(lines))
    return path


@pytest.fixture
def trigram(folder: Path) -> Callable[..., int]:
    def run(*bindings: str) -> int:
        named = {"CORPUS": folder / "text.txt", "TOKENIZER": folder / "vocab.txt", "DATA_DIR": folder}
        named |= {"MODEL_DIR": folder / "run", "CACHE_DIR": folder / "caches"}
        given = [f"{name}={str(value)!r}" for name, value in named.items()]
        given += ["NUM_PROCESSES=1", "SEQUENCE_LENGTH=16", "HELD_OUT_FRACTION=0.0", *bindings]
        return main(["trigram", *(f"--gin.{binding}" for binding in given)])

    return run


def test_what_is_right_is_what_a_count_by_hand_predicts(folder: Path, trigram: Callable[..., int]) -> None:
    assert trigram("NUM_SEEDS=3", "SEED=5", "probing.TrigramRun.mask_prob=0.4") == 0
    # As `electra compare` reads it.
    found = read_json(folder / "run/results.json", ScoredSeeds)
    assert (found["main_metric"], found["split"], found["kind"]) == ("accuracy", "test", "trigram")
    vocabulary = Vocabulary(TOKENS, True, True)
    tagged = [TaggedSentence(words, ("X",) * 5, 1) for words in SENTENCES * 4]
    # Of two words that are equally frequent everywhere the vocabulary's first one is taken.
    follows = {("[CLS]",): "the", ("cat",): "sat", ("sat",): "on"}
    for words in SENTENCES:
        read = ("[CLS]", *words)
        follows |= {read[place - 2 : place]: word for place, word in enumerate(read) if place > 1}
    for left, right in (("the", "cat"), ("who", "cat"), ("on", "mat"), ("in", "paris")):
        follows[left,] = right
    follows["cat", "sat"] = "on"
    for seed in found["seeds"]:
        asked = ask("words", tagged, vocabulary, length=128, mask_prob=0.4, draw=draw_of(seed["seed"], "test"))
        right = []
        answers = iter(asked.answers)
        for row, places in zip(asked.rows, asked.positions, strict=True):
            tokens = [TOKENS[number] for number in row["input_ids"]]
            for place in places:
                before = tuple(tokens[max(0, place - 2) : place])
                known = next((cut for cut in (before, before[-1:]) if "[MASK]" not in cut and cut in follows), None)
                # "cat" and "sat" are the most frequent words.
                right.append(next(answers) == (follows[known] if known else "cat"))
        assert seed["num_asked"] == {"test": len(right)}
        assert seed["metrics"]["accuracy"] == pytest.approx(100 * np.mean(right))
    assert 0 < found["seeds"][0]["metrics"]["accuracy"] < 100
    record = json.loads((folder / "run/run.json").read_text())
    assert record["trigram"] == "words"


@pytest.mark.parametrize(
    ("bindings", "sentence"),
    [
        (["TASK='chunk'"], "TASK is 'chunk': a trigram model predicts tokens under masks, set it to 'words'"),
        (["CORPUS='nowhere.txt'"], "nowhere.txt"),
        (["DATA_DIR='nowhere'"], "words has no test split: it is not in nowhere as chunk/"),
        (["probing.TrigramRun.mask_prob=0.00001"], "the test split of words asks nothing in 8 sentences"),
        (["HELD_OUT_FRACTION=0.9999"], "is 100% of its tokens (0 training examples are left)"),
    ],
)
def test_what_cannot_be_counted(
    bindings: list[str], sentence: str, trigram: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert trigram(*bindings) == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_of_another_run_is_left_alone(
    folder: Path, tmp_path: Path, trigram: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text('{"probe": "words"}')
    assert trigram(f"MODEL_DIR={str(tmp_path)!r}") == 2
    assert "holds a run of another kind: use another MODEL_DIR" in capsys.readouterr().err
