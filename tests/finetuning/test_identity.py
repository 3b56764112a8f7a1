"""Whether a MODEL_DIR holds the run that is asked for, in the words of its user."""

import dataclasses

import pytest

from electra_jax.config import gin_files
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.finetuning.identity import BATCHES, EACH_BY_ITSELF, OVER_THE_RUN, adds_epochs, changes, hash_of
from electra_jax.tasks.tagging.sentences import TaggedSentence
from electra_jax.tasks.text.tables import TextExample

DATA = {"the vocabulary's hash": "a", "the training data's hash": "b", "the dev data's hash": "c"}


@pytest.fixture
def asked() -> dict[str, object]:
    bindings = ["TASK='rte'", "MODEL_DIR='run'", "INIT_FROM='runs/mine'"]
    run = gin_files.build(FinetuningRun, ["gin/runs/finetune.gin"], bindings, search_paths=[])
    return run.identity(run.optimizer(num_train_steps=100, num_warmup_steps=10)) | DATA


def test_settings_are_named_as_users_name_them(asked: dict[str, object]) -> None:
    assert changes(asked, asked) == []
    held = asked | {"optimizer.learning_rate": 3e-4, "batch_size": 16, "heads.beam_size": 5, "task.length": 64}
    # The data is then read, and counted, in another way.
    held |= {"optimizer.num_train_steps": 200, "the training data's hash": "d"}
    assert changes(held, asked) == [
        "BATCH_SIZE 16 there, 32 here",
        "LEARNING_RATE 0.0003 there, 0.0001 here",
        "MAX_SEQ_LENGTH 64 there, None here",
        "heads.beam_size 5 there, 20 here",
    ]


def test_a_run_that_names_no_selection_may_resume(asked: dict[str, object]) -> None:
    earlier = {name: value for name, value in asked.items() if name != "selection"}
    assert changes({"selection": "last", **earlier}, asked) == []
    assert changes({"selection": "last", **earlier}, asked | {"selection": "best"}) == [
        "SELECTION 'last' there, 'best' here"
    ]


def test_batches_of_an_earlier_version_are_another_run(asked: dict[str, object]) -> None:
    held, asked = asked | {BATCHES: EACH_BY_ITSELF}, asked | {BATCHES: OVER_THE_RUN}
    (said,) = changes(held, asked)
    assert said == "an earlier version began it, which ordered and weighed the rows of batches in another way"
    # Beside everything else that differs, and also where epochs are added.
    assert changes(held | {"the training data's hash": "d"}, asked) == [said, "the training file has changed"]
    assert changes(held | {"epochs": 2}, asked) == [said, "EPOCHS 2 there, 10 here"]
    assert not adds_epochs(held | {"epochs": 2}, asked)
    assert adds_epochs(held | {"epochs": 2, BATCHES: OVER_THE_RUN}, asked)


def test_data_is_compared_under_the_same_settings(asked: dict[str, object]) -> None:
    assert changes(asked | {"the training data's hash": "d"}, asked) == ["the training file has changed"]
    held = asked | {"the vocabulary's hash": "d", "the dev data's hash": "d"}
    assert changes(held, asked) == ["INIT_FROM has another vocabulary by now", "the dev file has changed"]
    # A run of an earlier version, which recorded no hash: other numbers of steps show it, and are said once.
    earlier = {name: value for name, value in asked.items() if "data's" not in name}
    assert changes(earlier, asked) == []
    earlier |= {"optimizer.num_train_steps": 90, "optimizer.num_warmup_steps": 9.0}
    assert changes(earlier, asked) == ["the training file has changed"]


@pytest.mark.parametrize(
    ("example", "change"),
    [
        (TextExample(0, "a", None, 1), {"label": 0}),
        (TextExample(0, "a", None, 1), {"text_a": "a "}),
        (TaggedSentence(("John",), ("B-PER",), 1), {"tags": ("B-LOC",)}),
    ],
)
def test_every_text_and_label_counts(example: TextExample | TaggedSentence, change: dict[str, object]) -> None:
    if isinstance(example, TextExample):
        other: object = example._replace(**change)
    else:
        other = dataclasses.replace(example, **change)
    assert hash_of([("no", "yes"), example]) == hash_of([("no", "yes"), example])
    assert hash_of([("no", "yes"), example]) != hash_of([("no", "yes"), other])
    # Other names of the same numbers.
    assert hash_of([("no", "yes"), example]) != hash_of([("bad", "good"), example])
    # What no encoding can hold is hashed all the same.
    assert hash_of([TextExample(0, "\ud800", None, 1)]) != hash_of([TextExample(0, "", None, 1)])
