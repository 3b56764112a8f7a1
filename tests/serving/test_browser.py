"""The page of `electra serve` in a real browser: a person types, clicks, and sees the answer."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

import electra_jax
from electra_jax.checkpoints.model_dir import write_model
from electra_jax.inference.network import Network
from electra_jax.serving.application import make_application
from electra_jax.serving.server import bound_socket, url_of
from support.browser import Tab, browser_tab
from support.finetuned_model import QA, QUESTION, text_facts, write_tuned
from support.served import RUN

LABELS = ("bad", "größer & <b>", "good")


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    with browser_tab(tmp_path / "browser") as tab:
        yield tab


@contextlib.contextmanager
def served(model: Network) -> Iterator[str]:
    """The address of a server of the model in a thread."""
    server = uvicorn.Server(uvicorn.Config(make_application(model, RUN), log_config=None, access_log=False))
    listening = bound_socket("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield url_of(listening)
    finally:
        server.should_exit = True
        thread.join()


def asked(tab: Tab, directory: Path, texts: list[str], script: str) -> tuple[Network, Any]:
    """Type texts into the fields of a model's page, click its button, and ask the page that follows.

    Returns:
        The model, and the value of `script` in that page.
    """
    model = electra_jax.load(directory)
    with served(model) as url:
        tab.open(url)
        for place, text in enumerate(texts):
            # The cursor is in the first field from the start.
            if place:
                tab.next_field()
            tab.type(text)
        tab.click("button")
        return model, tab.ask(script)


def test_fakes_are_shaded(tab: Tab, tmp_path: Path) -> None:
    text = "the cats sat é — 山"
    flat = electra_jax.load(write_tuned(tmp_path / "flat", "pretraining", labels=(), task=None))
    shares = np.array(flat(text)[0]["replaced_probability"])
    logits = np.log(shares / (1 - shares))
    # Of so small a model by chance all tokens look nearly alike: as it is, no shade would differ from another.
    head = flat.params["discriminator"]["head"]
    last = head["prediction"]
    scale = 2 / logits.std()
    spread = {"kernel": last["kernel"] * scale, "bias": (last["bias"] - logits.mean()) * scale}
    tower = flat.params["discriminator"] | {"head": head | {"prediction": spread}}
    params = flat.params | {"discriminator": tower}
    directory = tmp_path / "model"
    directory.mkdir()
    write_model(directory, flat.description, {"params": params}, step=4, vocabulary=flat.vocabulary)
    script = "[...document.querySelectorAll('.passage span')].map(token => getComputedStyle(token).backgroundColor)"
    model, colours = asked(tab, directory, [text], script)
    shares = model(text)[0]["replaced_probability"]
    # The colour is the stronger the likelier a token is a fake: its opacity is 0.8 of that.
    opacities = [float(colour.rpartition(",")[2].strip(" )")) for colour in colours]
    assert opacities == pytest.approx([0.8 * share for share in shares], abs=0.01)
    assert max(opacities) > 0.6
    assert min(opacities) < 0.2


def test_a_label_stands_large_with_a_bar_for_each(tab: Tab, tmp_path: Path) -> None:
    facts = text_facts("own", LABELS, pair=True)
    directory = write_tuned(tmp_path / "model", "sequence_classification", labels=LABELS, task=facts)
    texts = ["the cat\nran <b>home</b>", "größer & 100 % +"]
    script = """({
        typed: [...document.querySelectorAll('textarea')].map(field => field.value),
        label: document.querySelector('.said').textContent,
        names: [...document.querySelectorAll('.bars th')].map(cell => cell.textContent),
        widths: [...document.querySelectorAll('.bars i')].map(bar => bar.getBoundingClientRect().width),
        whole: document.querySelector('.meter').getBoundingClientRect().width,
    })"""
    model, page = asked(tab, directory, texts, script)
    (record,) = model([tuple(texts)])
    found = dict(zip(page["names"], (width / page["whole"] for width in page["widths"]), strict=True))
    assert page["label"] == record["label"]
    assert found == pytest.approx(record["probabilities"], abs=0.01)
    assert page["typed"] == texts


def test_spans_are_marked_in_their_text(tab: Tab, tmp_path: Path) -> None:
    directory = write_tuned(tmp_path / "model", "token_classification", labels=("NOUN", "VERB"), task=None)
    text = "john  ran home, the dog sat in paris"
    script = """[...document.querySelectorAll('.passage mark')].map(
        mark => [mark.firstChild.textContent, mark.querySelector('small').textContent])"""
    model, marks = asked(tab, directory, [text], script)
    (record,) = model(text)
    assert marks == [list(pair) for pair in zip(record["words"], record["tags"], strict=True)]
    assert len(marks) == 8


def test_the_answer_is_marked_in_its_passage(tab: Tab, tmp_path: Path) -> None:
    directory = write_tuned(tmp_path / "model", "question_answering", labels=(), task=QA)
    script = """({
        said: document.querySelector('.said').textContent,
        mark: document.querySelector('.passage mark').textContent,
        passage: document.querySelector('.passage p').textContent,
    })"""
    model, page = asked(tab, directory, [QUESTION["context"], QUESTION["question"]], script)
    (record,) = model(QUESTION)
    assert page == {"said": record["answer"], "mark": record["answer"], "passage": QUESTION["context"]}


def test_what_is_not_answered_is_said(tab: Tab, tmp_path: Path) -> None:
    facts = text_facts("own", LABELS, pair=False)
    directory = write_tuned(tmp_path / "model", "sequence_classification", labels=LABELS, task=facts)
    _, said = asked(tab, directory, ["a " * 2000], "document.querySelector('[role=alert]').innerText")
    assert said == "Not answered: the body has more than 2,000 bytes: send less in a request, or raise MAX_BODY_BYTES"
