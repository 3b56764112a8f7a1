"""Models of every kind, and a client of one of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import electra_jax
from electra_jax.inference.network import Network
from electra_jax.serving.application import make_application
from support.finetuned_model import QA, TAGGING, TAGS, text_facts, write_tuned
from support.served import LABELS, RUN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serving")
    write_tuned(path / "one", "sequence_classification", labels=LABELS, task=text_facts("own", LABELS, pair=False))
    write_tuned(path / "pairs", "sequence_classification", labels=LABELS, task=text_facts("two", LABELS, pair=True))
    write_tuned(path / "value", "regression", labels=(), task=None)
    write_tuned(path / "tags", "token_classification", labels=TAGS, task=TAGGING)
    write_tuned(path / "plain_tags", "token_classification", labels=("NOUN", "VERB"), task=None)
    write_tuned(path / "answers", "question_answering", labels=(), task=QA)
    write_tuned(path / "choices", "multiple_choice", labels=(), task=None, head_kind="sequence_classification")
    write_tuned(path / "pretraining", "pretraining", labels=(), task=None)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Network:
    return electra_jax.load(folder / "one")


@pytest.fixture
def client(model: Network) -> Iterator[TestClient]:
    with TestClient(make_application(model, RUN), raise_server_exceptions=False) as client:
        yield client
