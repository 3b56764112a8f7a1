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
from electra_jax.config.serving import ServingRun
from electra_jax.errors import UserError
from electra_jax.inference.network import Network
from electra_jax.inference.prediction import Record
from electra_jax.serving import application, page
from electra_jax.serving.application import make_application
from electra_jax.serving.warm_up import served_lengths, served_shapes, warm_up
from support.finetuned_model import QA, QUESTION, TAGGING, TAGS, text_facts, write_tuned
from support.pages import Page

LABELS = ("bad", "<b>fair</b>", "good")
CHOICES = {"text": "the dog ran home", "text_pair": "who ran?", "choices": ["the cat", "the dog"]}
RUN = ServingRun(
    model_dir="runs/<one>",
    host="127.0.0.1",
    port=0,
    text_column=None,
    text_b_column=None,
    id_column="id",
    max_batch_size=2,
    max_wait_ms=0.0,
    max_body_bytes=2000,
    max_inputs=3,
    max_queue=3,
)


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


class TestPage:
    """The page at `/`, of each kind of model."""

    def ask(self, folder: Path, name: str, status: int = 200, **fields: str) -> tuple[Page, str]:
        """The page of a model with the answer to a form."""
        with TestClient(make_application(electra_jax.load(folder / name), RUN)) as client:
            asked = client.get("/")
            assert asked.status_code == 200
            named = [value for key, value in Page(asked.text).attributes if key == "name" and value != "viewport"]
            assert named == list(fields)
            answered = client.post("/", data=fields)
        assert answered.status_code == status
        assert "default-src 'none'" in answered.headers["content-security-policy"]
        found = Page(answered.text)
        loaded = {"src", "href", "srcset", "onload", "onerror"} & {key for key, _ in found.attributes}
        assert not loaded
        assert not {"script", "link", "img", "iframe"} & set(found.tags)
        assert "url(" not in answered.text
        return found, answered.text

    def test_fakes_are_shaded_by_their_probability(self, folder: Path) -> None:
        found, text = self.ask(folder, "pretraining", text="the cats sat [MASK]")
        record = electra_jax.load(folder / "pretraining")("the cats sat [MASK]")[0]
        shades = [value for key, value in found.attributes if key == "style" and value and value.startswith("--p:")]
        assert shades == [f"--p:{share:.3f}" for share in record["replaced_probability"]]
        framed = sum(str(value).endswith(" rep") for key, value in found.attributes if key == "class")
        assert framed == sum(share > 0.5 for share in record["replaced_probability"])
        assert ">cat</span>" in text
        assert "stands for a word to be filled in" in found.text

    def test_labels_have_their_probabilities_and_nothing_is_markup(self, folder: Path) -> None:
        found, text = self.ask(folder, "one", text="</textarea><script>alert(1)</script>\r\nthe cat")
        (record,) = electra_jax.load(folder / "one")("</textarea><script>alert(1)</script>\nthe cat")
        assert "<h1>&lt;one&gt;</h1>" in text
        assert "alert(1)</script>\nthe cat</textarea>" not in text
        assert "&lt;/textarea&gt;&lt;script&gt;alert(1)&lt;/script&gt;\nthe cat</textarea>" in text
        assert f"Answer {record['label']} " in found.text
        best = sorted(record["probabilities"].items(), key=lambda entry: -entry[1])
        places = [found.text.index(f"{name}{100 * share:.1f}\N{NO-BREAK SPACE}%") for name, share in best]
        assert places == sorted(places)

    def test_a_value(self, folder: Path) -> None:
        found, _ = self.ask(folder, "value", text="the cat")
        assert f"Answer {electra_jax.load(folder / 'value')('the cat')[0]['value']:.4g} " in found.text

    def test_a_similarity(self, model: Network) -> None:
        pair = {"text": "x", "text_pair": "y"}
        assert page.shown(model, pair, {"similarity": 0.123456}).answer == "0.1235"
        # In the units of its training, where it has some.
        assert page.shown(model, pair, {"similarity": 0.5, "value": 2.5}).answer == "2.5"

    def test_tags_stand_in_their_text(self, folder: Path) -> None:
        given = "john  ran home, the dog sat in paris"
        _, text = self.ask(folder, "plain_tags", text=given)
        (record,) = electra_jax.load(folder / "plain_tags")(given)
        assert text.count("<mark ") == len(record["tags"]) == 8
        assert f">home,<small>{record['tags'][2]}</small></mark>" in text

    def test_entities_are_marked_where_they_stand(self, model: Network) -> None:
        entities = [
            {"type": "PER", "text": "John Doe", "start": 0, "end": 9, "score": 0.876},
            {"type": "LOC", "text": "Rome", "start": 13, "end": 17, "score": 1.0},
        ]
        found = page.shown(model, {"text": "John  Doe in Rome."}, {"tags": [], "entities": entities})
        assert found.parts == [
            page.Part("John  Doe", "PER", "88%"),
            page.Part(" in ", "", ""),
            page.Part("Rome", "LOC", "100%"),
            page.Part(".", "", ""),
        ]

    @pytest.mark.parametrize(("labels", "answer"), [(["a", "b"], "a, b"), ([], "no label")])
    def test_any_number_of_labels(self, model: Network, labels: list[str], answer: str) -> None:
        found = page.shown(model, {"text": "x"}, {"labels": labels, "probabilities": {"c": 0.1, "a": 0.9}})
        assert (found.answer, found.bars) == (answer, [page.Bar("a", 0.9), page.Bar("c", 0.1)])

    def test_an_answer_is_marked_in_its_passage(self, folder: Path) -> None:
        fields = {"context": QUESTION["context"], "question": QUESTION["question"]}
        _, text = self.ask(folder, "answers", **fields)
        (record,) = electra_jax.load(folder / "answers")(QUESTION)
        before, after = fields["context"][: record["start"]], fields["context"][record["end"] :]
        assert f'dir="auto">{before}<mark title="the answer">{record["answer"]}</mark>{after}</p>' in text

    @pytest.mark.parametrize("question", ["who ran?", ""])
    def test_choices_have_their_probabilities_in_the_order_given(self, folder: Path, question: str) -> None:
        fields = {"text": CHOICES["text"], "text_pair": question, "choices": "the cat\r\n\r\nthe dog\r\n"}
        found, _ = self.ask(folder, "choices", **fields)
        value = {name: one for name, one in CHOICES.items() if question or name != "text_pair"}
        (record,) = electra_jax.load(folder / "choices")(value)
        assert f"Answer {record['choice']} " in found.text
        bars = (
            f"{name}{100 * share:.1f}\N{NO-BREAK SPACE}%"
            for name, share in zip(CHOICES["choices"], record["probabilities"], strict=True)
        )
        places = [found.text.index(bar) for bar in bars]
        assert places == sorted(places)

    def test_a_form_that_is_refused_is_shown_again(self, folder: Path) -> None:
        found, _ = self.ask(folder, "one", status=413, text="a" * 3000)
        assert "Not answered: the body has more than 2,000 bytes" in found.text

    @pytest.mark.parametrize("body", [b"other=1", b"text=%FF", b"a=1&b=2&c=3&d=4&text=5"])
    def test_what_no_form_sends(self, client: TestClient, body: bytes) -> None:
        found = client.post("/", content=body)
        assert found.status_code == 400
        assert "send it from the page, or POST /predict" in found.text


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
    assert "input_ids that are no list" in sentence(client.post("/predict", content=content), 400)


def test_an_id_that_is_no_number_of_json_is_null(client: TestClient) -> None:
    found = client.post("/predict", content='{"inputs": [{"text": "the cat", "id": NaN}, {"text": 5, "id": Infinity}]}')
    records = json.loads(found.text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["records"]
    assert [record["id"] for record in records] == [None, None]
