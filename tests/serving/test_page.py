"""The page of `electra serve` at `/`, of each kind of model."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

import electra_jax
from electra_jax.inference.network import Network
from electra_jax.serving import page
from electra_jax.serving.application import make_application
from support.finetuned_model import QUESTION
from support.pages import Page
from support.served import CHOICES, RUN


def ask(folder: Path, name: str, status: int = 200, **fields: str) -> tuple[Page, str]:
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


def test_fakes_are_shaded_by_their_probability(folder: Path) -> None:
    found, text = ask(folder, "pretraining", text="the cats sat [MASK]")
    record = electra_jax.load(folder / "pretraining")("the cats sat [MASK]")[0]
    shades = [value for key, value in found.attributes if key == "style" and value and value.startswith("--p:")]
    assert shades == [f"--p:{share:.3f}" for share in record["replaced_probability"]]
    framed = sum(str(value).endswith(" rep") for key, value in found.attributes if key == "class")
    assert framed == sum(share > 0.5 for share in record["replaced_probability"])
    assert ">cat</span>" in text
    assert "stands for a word to be filled in" in found.text


def test_labels_have_their_probabilities_and_nothing_is_markup(folder: Path) -> None:
    found, text = ask(folder, "one", text="</textarea><script>alert(1)</script>\r\nthe cat")
    (record,) = electra_jax.load(folder / "one")("</textarea><script>alert(1)</script>\nthe cat")
    assert "<h1>&lt;one&gt;</h1>" in text
    assert "alert(1)</script>\nthe cat</textarea>" not in text
    assert "&lt;/textarea&gt;&lt;script&gt;alert(1)&lt;/script&gt;\nthe cat</textarea>" in text
    assert f"Answer {record['label']} " in found.text
    best = sorted(record["probabilities"].items(), key=lambda entry: -entry[1])
    places = [found.text.index(f"{name}{100 * share:.1f}\N{NO-BREAK SPACE}%") for name, share in best]
    assert places == sorted(places)


def test_a_value(folder: Path) -> None:
    found, _ = ask(folder, "value", text="the cat")
    assert f"Answer {electra_jax.load(folder / 'value')('the cat')[0]['value']:.4g} " in found.text


def test_a_similarity(model: Network) -> None:
    pair = {"text": "x", "text_pair": "y"}
    assert page.shown(model, pair, {"similarity": 0.123456}).answer == "0.1235"
    # In the units of its training, where it has some.
    assert page.shown(model, pair, {"similarity": 0.5, "value": 2.5}).answer == "2.5"


def test_tags_stand_in_their_text(folder: Path) -> None:
    given = "john  ran home, the dog sat in paris"
    _, text = ask(folder, "plain_tags", text=given)
    (record,) = electra_jax.load(folder / "plain_tags")(given)
    assert text.count("<mark ") == len(record["tags"]) == 8
    assert f">home,<small>{record['tags'][2]}</small></mark>" in text


def test_entities_are_marked_where_they_stand(model: Network) -> None:
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
def test_any_number_of_labels(model: Network, labels: list[str], answer: str) -> None:
    found = page.shown(model, {"text": "x"}, {"labels": labels, "probabilities": {"c": 0.1, "a": 0.9}})
    assert (found.answer, found.bars) == (answer, [page.Bar("a", 0.9), page.Bar("c", 0.1)])


def test_an_answer_is_marked_in_its_passage(folder: Path) -> None:
    fields = {"context": QUESTION["context"], "question": QUESTION["question"]}
    _, text = ask(folder, "answers", **fields)
    (record,) = electra_jax.load(folder / "answers")(QUESTION)
    before, after = fields["context"][: record["start"]], fields["context"][record["end"] :]
    assert f'dir="auto">{before}<mark title="the answer">{record["answer"]}</mark>{after}</p>' in text


@pytest.mark.parametrize("question", ["who ran?", ""])
def test_choices_have_their_probabilities_in_the_order_given(folder: Path, question: str) -> None:
    fields = {"text": CHOICES["text"], "text_pair": question, "choices": "the cat\r\n\r\nthe dog\r\n"}
    found, _ = ask(folder, "choices", **fields)
    value = {name: one for name, one in CHOICES.items() if question or name != "text_pair"}
    (record,) = electra_jax.load(folder / "choices")(value)
    assert f"Answer {record['choice']} " in found.text
    bars = (
        f"{name}{100 * share:.1f}\N{NO-BREAK SPACE}%"
        for name, share in zip(CHOICES["choices"], record["probabilities"], strict=True)
    )
    places = [found.text.index(bar) for bar in bars]
    assert places == sorted(places)


def test_a_form_that_is_refused_is_shown_again(folder: Path) -> None:
    found, _ = ask(folder, "one", status=413, text="a" * 3000)
    assert "Not answered: the body has more than 2,000 bytes" in found.text


@pytest.mark.parametrize("body", [b"other=1", b"text=%FF", b"a=1&b=2&c=3&d=4&text=5"])
def test_what_no_form_sends(client: TestClient, body: bytes) -> None:
    found = client.post("/", content=body)
    assert found.status_code == 400
    assert "send it from the page, or POST /predict" in found.text
