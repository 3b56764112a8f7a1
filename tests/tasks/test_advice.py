"""The advice of each error about text, once followed, leads to the text and not to the next error."""

import bz2
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from pyarrow import parquet

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.open import open_corpus
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import load_vocabulary

SENTENCE = "Öne sentence."


class Advice(NamedTuple):
    """A file with which something is wrong, what its error advises, and what follows the advice.

    Attributes:
        content: the file.
        settings: the settings with which it is read.
        advised: a pattern of the error's advice.
        mended: the file after the advice.
        then: the settings after the advice.
    """

    content: bytes
    settings: dict[str, Any]
    advised: str
    mended: bytes
    then: dict[str, Any]


def table(column: str) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({column: [SENTENCE]}), sink)
    return sink.getvalue().to_pybytes()


def line(**record: Any) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


PLAIN = SENTENCE.encode()
ADVICE = {
    "name the field": Advice(line(body=SENTENCE), {}, "fields: 'body'.*TEXT_FIELD", b"", {"text_field": "body"}),
    "name the nested field": Advice(
        line(text={"de": SENTENCE, "n": 1}), {}, r"'text\.de'", b"", {"text_field": "text.de"}
    ),
    "name the column": Advice(table("body"), {}, "columns: 'body'.*TEXT_FIELD", b"", {"text_field": "body"}),
    "name the column of a table": Advice(
        b"id,body\n" + f"0,{SENTENCE}\n".encode() * 4, {}, "columns: 'id', 'body'", b"", {"text_field": "body"}
    ),
    "leave out lines": Advice(b"B\xe9.\n" + PLAIN, {}, "SKIP_UNDECODABLE=True", b"", {"skip_undecodable": True}),
    "no Parquet file as lines": Advice(
        table("text") + b"\xff\n" * 50,
        {"text_format": "lines", "skip_undecodable": True},
        "not UTF-8, too many.*set TEXT_FORMAT to 'auto'",
        table("text"),
        {"skip_undecodable": True},
    ),
    "convert": Advice((SENTENCE + "\n").encode("latin1") * 30, {"skip_undecodable": True}, "iconv", PLAIN, {}),
    "convert UTF-16": Advice(SENTENCE.encode("utf-16"), {}, "iconv -f UTF-16 -t UTF-8", PLAIN, {}),
    "convert UTF-32": Advice(SENTENCE.encode("utf-32"), {}, "iconv -f UTF-32 -t UTF-8", PLAIN, {}),
    "four lines with a letter O": Advice(
        b"Sing, O\nthe old O\nand new O\nand last O\n" + PLAIN, {}, "TEXT_FORMAT", b"", {"text_format": "documents"}
    ),
    "plain text all the same": Advice(
        b"<?xml to me> is\n" + PLAIN, {}, "TEXT_FORMAT='\"documents\"'", b"", {"text_format": "documents"}
    ),
    "plain text that looks like JSON": Advice(
        b'["a", "b"\n' + PLAIN, {}, "TEXT_FORMAT='\"documents\"'", b"", {"text_format": "documents"}
    ),
    "leave out the JSON line": Advice(
        b'{"text": "x}\n' + line(text=SENTENCE), {}, "leave it out", line(text=SENTENCE), {}
    ),
    "fetch again": Advice(bz2.compress(PLAIN)[:-4], {}, "fetch or make the file again", bz2.compress(PLAIN), {}),
    "mend the quotes": Advice(
        b'id,text\n0,"' + b"x" * (2**24 + 1), {}, "correct the row's quotes", f"id,text\n0,{SENTENCE}\n".encode(), {}
    ),
}


@pytest.mark.parametrize("name", ADVICE)
def test_advice_leads_to_the_text(tmp_path: pathlib.Path, name: str) -> None:
    advice = ADVICE[name]
    path = tmp_path / "a"

    def read(content: bytes, settings: dict[str, Any]) -> list[str]:
        path.write_bytes(content)
        corpus = open_corpus(
            str(path), **{"text_format": "auto", "text_field": "text", "skip_undecodable": False} | settings
        )
        return [document.text for unit in corpus.units for document in corpus.documents(unit)]

    with pytest.raises(UserError, match=advice.advised) as error:
        read(advice.content, advice.settings)
    assert str(path) in str(error.value)
    assert read(advice.mended or advice.content, advice.then)[-1].endswith(SENTENCE)


@pytest.mark.parametrize("write", [lambda word: f"\u2581{word}\t-3.2", lambda word: f"\u0120{word}"])
def test_a_vocabulary_of_another_kind_is_refused_before_and_after_special_tokens_are_added(
    tmp_path: pathlib.Path, write: Callable[[str], str]
) -> None:
    words = [write(word) for word in ("the", "of", "and", "to")]
    path = tmp_path / "vocab.txt"
    for lines in (["<unk>\t0", *words], [*SPECIAL_TOKENS, *words]):
        path.write_text("\n".join(lines) + "\n")
        with pytest.raises(UserError, match=r"not BERT's vocab\.txt: give the tokenizer\.json"):
            load_vocabulary(str(path), lowercase=None)


def test_special_tokens_that_are_added_to_a_vocabulary_are_all_that_it_lacked(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\nthe\n##n\n")
    with pytest.raises(UserError, match=r"lacks \[CLS\], \[SEP\], \[MASK\]; add a line for each"):
        load_vocabulary(str(path), lowercase=None)
    with path.open("a") as file:
        file.write("[CLS]\n[SEP]\n[MASK]\n")
    vocabulary = load_vocabulary(str(path), lowercase=None)
    assert vocabulary.encode("then the") == [2, 3, 2]
    assert vocabulary.mask_id == 6
