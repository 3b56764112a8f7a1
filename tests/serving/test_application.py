"""`electra serve`: what requests get, what is refused, and that no request compiles."""

import contextlib
import dataclasses
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

import electra_jax
from electra_jax.cli import main
from electra_jax.errors import UserError
from electra_jax.inference.network import Network
from electra_jax.inference.prediction import Record
from electra_jax.serving import application
from electra_jax.serving.application import make_application
from electra_jax.serving.warm_up import served_lengths, served_shapes, warm_up
from support.finetuned_model import QUESTION, text_facts, write_tuned
from support.served import CHOICES, LABELS, RUN


def sentence(response: Any, status: int) -> str:
    """The sentence of a refusal."""
    assert response.status_code == status, response.text
    found = response.json()
    assert list(found) == ["error"]
    return found["error"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("one", [{"text": "the cat sat", "id": 7}, "ran home", [2, 9, 3]]),
        ("pairs", [["the cat", "ran"], {"text": "who", "text_pair": "john"}]),
        ("value", ["the cat sat"]),
        ("tags", [{"words": ["john", "ran"]}, "in paris"]),
        ("answers", [QUESTION | {"id": "q"}]),
        ("choices", [CHOICES, {"text": "who ran", "choices": ["the dog", "john", "a cat in paris"]}]),
        ("pretraining", ["the cat [MASK] home", {"input_ids": [2, 9, 10, 3], "attention_mask": [1, 1, 1, 1]}]),
    ],
)
def test_records_are_those_of_predict(folder: Path, tmp_path: Path, name: str, values: list[Any]) -> None:
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(value)}\n" for value in values))
    assert main(["predict", str(folder / name), str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out")]) == 0
    expected = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    # As many rows at a time as predict takes here, so that the numbers are the same to the last digit.
    run = dataclasses.replace(RUN, max_batch_size=32)
    with TestClient(make_application(electra_jax.load(folder / name), run)) as client:
        assert client.post("/predict", json={"inputs": values}).json() == {"records": expected}
        one = client.post("/predict", json=values[-1]).json()
    assert one["index"] == 0
    assert one.keys() == expected[-1].keys()


def test_fields_have_the_names_that_were_set(model: Network) -> None:
    run = dataclasses.replace(RUN, text_column="review", id_column="number")
    with TestClient(make_application(model, run)) as client:
        named = client.post("/predict", json={"review": "the cat", "number": 3}).json()
        plain = client.post("/predict", json="the cat").json()
    assert named == {"index": 0, "id": 3} | plain


def test_one_input_that_is_refused_spoils_no_other(client: TestClient) -> None:
    found = client.post("/predict", json={"inputs": ["the cat", {"id": 4, "text": 5}, [2, 99, 3]]})
    assert found.status_code == 200
    first, second, third = found.json()["records"]
    assert set(first) == {"index", "label", "probabilities"}
    assert second == {
        "index": 1,
        "id": 4,
        "error": "input 2 is {'text': 5}: this model reads a text, or a pair of texts",
    }
    assert third["index"] == 2
    assert "input_ids goes from 2 to 99" in third["error"]
    assert client.post("/predict", json={"inputs": []}).json() == {"records": []}


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        (b"", 400, "the body: an empty line"),
        (b'{"text": ', 400, "the body: not JSON"),
        (b"[" * 1500, 400, "the body: not JSON"),
        (b'"\xff"', 400, "the body is not UTF-8"),
        (b'{"inputs": "the cat"}', 400, "inputs that are no list"),
        (b'{"inputs": [], "text": "the cat"}', 400, "or something beside"),
        (b'{"other": 1}', 400, "the input is an object with neither input_ids nor text"),
        (b'["the", "cat"]', 400, "this model reads one text"),
        (b"3", 400, "the input is 3"),
        (b"[2, 99, 3]", 400, "input_ids goes from 2 to 99"),
        (f"[{'2, ' * 32}3]".encode(), 400, "the input has 33 input_ids, and this server takes 32"),
        (b'{"inputs": ["a", "b", "c", "d"]}', 413, "the body has 4 inputs and this server takes 3"),
        (b'"' + b"a" * 2000 + b'"', 413, "the body has more than 2,000 bytes"),
    ],
)
def test_a_request_that_is_refused_gets_a_sentence(client: TestClient, body: bytes, status: int, part: str) -> None:
    assert part in sentence(client.post("/predict", content=body), status)
    assert client.post("/predict", json="the cat").status_code == 200


def test_a_body_without_a_declared_length_is_measured(client: TestClient) -> None:
    parts = iter([b'"', *[b"a" * 1000] * 3, b'"'])
    assert "more than 2,000 bytes" in sentence(client.post("/predict", content=parts), 413)


def test_paths_and_methods_that_there_are_not(client: TestClient) -> None:
    assert sentence(client.get("/elsewhere"), 404)
    assert sentence(client.get("/predict"), 405)


def test_a_full_queue_is_told(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, named_records = threading.Event(), threading.Event(), application.named_records

    def held(*given: Any) -> list[Record]:
        begun.set()
        assert go.wait(60)
        return named_records(*given)

    monkeypatch.setattr(application, "named_records", held)
    with ThreadPoolExecutor(2) as others:
        computed = others.submit(client.post, "/predict", json={"inputs": ["the cat", "ran"]})
        assert begun.wait(60)
        waits = others.submit(client.post, "/predict", json={"inputs": ["a", "b", "c"]})
        while client.get("/health").json()["waiting"] != 3:
            time.sleep(0.01)
        refused = client.post("/predict", json="the cat")
        assert "the queue is full (3 inputs wait already, of at most 3)" in sentence(refused, 503)
        assert refused.headers["retry-after"] == "1"
        go.set()
        assert [len(one.result(60).json()["records"]) for one in (computed, waits)] == [2, 3]
    assert client.post("/predict", json="the cat").status_code == 200


def test_a_failure_is_told_and_the_server_goes_on(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(application, "named_records", lambda *_: 1 / 0)
        assert sentence(client.post("/predict", json="the cat"), 500).startswith(
            "the server failed (ZeroDivisionError)"
        )
    assert client.post("/predict", json="the cat").status_code == 200


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """What is compiled meanwhile."""
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    try:
        yield compiled
    finally:
        jax.monitoring.clear_event_listeners()


def test_no_request_compiles(folder: Path) -> None:
    """One of every size and length, and masks to fill, after the shapes were compiled."""
    model = electra_jax.load(folder / "pretraining")
    assert served_lengths(model) == [16, 24, 32]
    shapes = served_shapes(model, 2)
    assert shapes == [(size, length) for length in (16, 24, 32) for size in (1, 2)]
    warm_up(model, shapes)
    run = dataclasses.replace(RUN, max_body_bytes=10**5, max_inputs=8, max_queue=8)
    with compilations() as compiled:
        with TestClient(make_application(model, run)) as client:
            for words in (1, 20, 100):
                for count in (1, 2, 5):
                    texts = [f"[MASK] {'cat ' * words}"] * count
                    ids = [[2, *[9] * min(words, 30), 3]] * count
                    for values in (texts, ids):
                        found = client.post("/predict", json={"inputs": values}).json()["records"]
                        assert [len(record["replaced_probability"]) for record in found] == [
                            min(words + 3 - (values is ids), 32)
                        ] * count
        assert compiled == []
        model.logits([[2, 3]] * 3)
        assert compiled != []


def test_no_number_of_choices_compiles(folder: Path) -> None:
    model = electra_jax.load(folder / "choices")
    warm_up(model, served_shapes(model, RUN.max_batch_size))
    with compilations() as compiled, TestClient(make_application(model, RUN)) as client:
        for count in (2, 3, 7):
            found = client.post("/predict", json=CHOICES | {"choices": ["the dog", *["cat " * 20] * (count - 1)]})
            assert len(found.json()["probabilities"]) == count
        assert compiled == []
        refused = client.post("/predict", json={"input_ids": [[2, 9, 3], [2, 10, 3]]})
        assert 'has input_ids, and this server reads {"text": ..., "choices": [' in sentence(refused, 400)


def test_a_task_is_served_at_its_own_length(folder: Path, tmp_path: Path) -> None:
    facts = text_facts("own", LABELS, pair=False) | {"length": 20}
    write_tuned(tmp_path / "short", "sequence_classification", labels=LABELS, task=facts)
    assert served_lengths(electra_jax.load(tmp_path / "short")) == [16, 24]


def test_health_and_metrics(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "kind": "sequence_classification", "waiting": 0}
    client.post("/predict", json={"inputs": ["the cat", "cat " * 40]})
    client.post("/predict", content=b"{")
    client.get("/no/such/path")
    text = client.get("/metrics")
    assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.text)
        for sample in family.samples
    }
    assert values["electra_requests_total", "/predict", "200"] == 1
    assert values["electra_requests_total", "/predict", "400"] == 1
    assert values["electra_requests_total", "404", "other"] == 1
    assert values["electra_request_seconds_count", "/predict"] == 2
    assert values["electra_inputs_total",] == 2
    assert values["electra_cut_texts_total",] == 1
    assert values["electra_batch_inputs_sum",] == 2
    assert values["electra_waiting_inputs",] == 0


def test_a_queue_has_room_for_the_largest_request() -> None:
    with pytest.raises(UserError, match=r"MAX_QUEUE is 2 and MAX_INPUTS 3: .*raise MAX_QUEUE"):
        dataclasses.replace(RUN, max_queue=2)


def test_an_address_that_is_taken_is_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(folder / "one"), f"--gin.PORT={port}"]) == 2
    error = capsys.readouterr().err
    assert f"cannot listen at 127.0.0.1, port {port} (Address already in use): set another HOST or PORT" in error


def test_what_cannot_be_served_is_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["serve", str(folder / "one"), "--gin.HOST='203.0.113.1'"]) == 2
    assert "cannot listen at 203.0.113.1, port 8000 (Cannot assign requested address)" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", str(folder / "one")]) == 2
    assert "needs uvicorn, which is not installed: install electra-jax[serve]" in capsys.readouterr().err


@pytest.mark.parametrize("ids", [0, None, "2 9 3", {"a": 2}, True, 1e400])
def test_ids_that_are_no_list(client: TestClient, ids: Any) -> None:
    content = json.dumps({"input_ids": ids})
    assert "input_ids is no list of integers" in sentence(client.post("/predict", content=content), 400)


def test_an_id_that_is_no_number_of_json_is_null(client: TestClient) -> None:
    found = client.post("/predict", content='{"inputs": [{"text": "the cat", "id": NaN}, {"text": 5, "id": Infinity}]}')
    records = json.loads(found.text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["records"]
    assert [record["id"] for record in records] == [None, None]
