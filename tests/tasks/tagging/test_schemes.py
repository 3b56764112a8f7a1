"""Tagging files in the shapes that people bring: comments, notations of tags, plain tags, spaces in words."""

import logging
from pathlib import Path

import numpy as np
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.catalog import make_task
from electra_jax.tasks.tagging.schemes import read_tag, recognised_scheme
from electra_jax.tasks.tagging.sentences import read_tagged_file
from electra_jax.tasks.tagging.task import TaggingTask
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary
from support.tiny_model import task_options

VOCABULARY = Vocabulary([*SPECIAL_TOKENS, "ann"], lowercase=True, strip_accents=True)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def made(file: Path, **changes: object) -> TaggingTask:
    options = task_options("tagging", train_file=str(file), dev_fraction=0.0, **changes)
    return make_task(options, VOCABULARY)


def words_and_tags(path: Path, *, word: int = 0, tag: int = -1) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    found = read_tagged_file(path, word_column=word, tag_column=tag, scheme="IOB2", skip_bad_rows=False)
    return [(sentence.words, sentence.tags) for sentence in found.examples]


@pytest.mark.parametrize(
    ("text", "word", "tag"),
    [
        ("#\thttp://example.org/0\t[2000-01-01]\n1\t#\tO\tO\n2\tAnn\tB-P\tO\n", 1, 2),  # GermEval
        ("# id = 0\n#\tO\nAnn\tB-P\n", 0, -1),  # WNUT
        ("# a = b\n# O\nAnn B-P\n", 0, -1),
        ("#begin document (x); part 000\n# O\nAnn B-P\n\n#end document\n", 0, -1),
        (
            "# sent_id = 1\n# text = # Ann\n1-2\t#Ann" + "\t_" * 8 + "\n1\t#\t_\tO" + "\t_" * 6 + "\n1.1\tx" + "\t_" * 8
            + "\n2\tAnn\t_\tB-P" + "\t_" * 6 + "\n",
            1, 3,
        ),  # CoNLL-U, with a word of several and an empty node
    ],
)  # fmt: skip
def test_comments_are_not_words_but_hash_signs_are(tmp_path: Path, text: str, word: int, tag: int) -> None:
    assert words_and_tags(written(tmp_path / "a.txt", text), word=word, tag=tag) == [(("#", "Ann"), ("O", "B-P"))]


def test_a_word_keeps_its_spaces(tmp_path: Path) -> None:
    tabs = written(tmp_path / "a.txt", "10\u00a0000\tO\n\u00a0\tO\nNew York\tB-P\n")
    assert words_and_tags(tabs) == [(("10\u00a0000", "\u00a0", "New York"), ("O", "O", "B-P"))]
    assert words_and_tags(written(tabs, "10\u00a0000 O\nAnn   B-P \n")) == [(("10\u00a0000", "Ann"), ("O", "B-P"))]


def test_columns_that_are_no_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.txt: column 0 numbers the words 1, 2, \.\.\.; set WORD_COLUMN"):
        words_and_tags(written(tmp_path / "a.txt", "1\tAnn\tB-P\n2\truns\tO\n\n1\tAnn\tB-P\n"))
    with pytest.raises(UserError, match=r"a\.txt, line 1: column 0 of 1 is both WORD_COLUMN and TAG_COLUMN"):
        made(written(tmp_path / "a.txt", "Ann,B-P\nruns,O\n"))
    with pytest.raises(UserError, match=r"a\.txt: commas separate the columns \('1,Ann,B-P'\); write a word a line"):
        made(written(tmp_path / "a.txt", "Sentence #,Word,Tag\nSentence: 1,Ann,B-P\n,runs,O\n"))


@pytest.mark.parametrize(
    ("tags", "scheme", "read"),
    [
        ("B-P I-P B-P O B-L", "IOB2", "B-P I-P B-P O B-L"),
        ("I-P I-P B-P O I-L", "IOB1", "I-P I-P B-P O I-L"),
        ("B-P E-P S-P O S-L", "IOBES", "B-P E-P S-P O S-L"),
        ("B-P I-P L-P U-P O", "BILOU", "B-P I-P E-P S-P O"),
        ("B-P M-P E-P S-P O", "BMES", "B-P I-P E-P S-P O"),
        ("P-B P-I P-B - LOC-B", "IOB2", "B-P I-P B-P O B-LOC"),
        ("b-org i-org o b_org", "IOB2", "B-org I-org O B-org"),
        ("B.P I.P O B:L", "IOB2", "B-P I-P O B-L"),
        ("PER PER O LOC", "IO", "I-PER I-PER O I-LOC"),
        ("DET NN-PL -LRB- _", "plain", "DET NN-PL -LRB- _"),
        ("O O", "IOB2", "O O"),
    ],
)
def test_schemes_are_recognised_and_read(tags: str, scheme: str, read: str) -> None:
    assert recognised_scheme([tags.split()]) == scheme
    assert [read_tag(tag, scheme) for tag in tags.split()] == read.split()


def test_a_rare_letter_is_a_fault_and_not_a_scheme() -> None:
    assert recognised_scheme([["B-P", "I-P"]] * 99 + [["S-P", "L-P"]]) == "IOB2"
    assert read_tag("S-P", "IOB2") is None


def test_parts_of_speech_are_scored_by_accuracy(tmp_path: Path) -> None:
    task = made(written(tmp_path / "pos.txt", "The DET\ndog NOUN\nruns VERB\n\nAnn NOUN\n"))
    assert (task.labels, task.scheme, task.main_metric) == (("DET", "NOUN", "VERB"), "plain", "accuracy")
    examples = task.examples("train").examples
    rows = task.rows(examples, training=True)
    outputs = [{"logits": np.tile([0.0, 1.0, 0.0], (len(row["input_ids"]), 1))} for row in rows]
    predictions = task.predictions(examples, rows, outputs)
    assert predictions[0].tags == ("NOUN",) * 3
    assert task.score(examples, predictions) == {"accuracy": 50.0}
    written(tmp_path / "pos.txt", "The X\n")
    dev = make_task(task_options("tagging", dev_file=str(tmp_path / "pos.txt")), VOCABULARY, recorded=task.describe())
    with pytest.raises(UserError, match="line 1: the type of 'X' was never seen in training"):
        dev.examples("dev")


def test_the_scheme_is_said_and_a_wrong_one_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = written(tmp_path / "a.txt", "Ann I-P\nBob B-P\nruns O\nRome I-L\n")
    with caplog.at_level(logging.INFO):
        task = made(file)
    assert task.scheme == "IOB1"
    assert "a.txt: the 4 different tags are read as IOB1 (TAG_SCHEME sets another)" in caplog.text
    # What is right scores full marks, tags included.
    examples = task.examples("train").examples
    rows = task.rows(examples, training=True)
    outputs = [{"logits": np.eye(len(task.labels))[row["label_ids"]]} for row in rows]
    assert task.score(examples, task.predictions(examples, rows, outputs))["accuracy"] == 100.0
    caplog.clear()
    assert made(file, tag_scheme="IOB2").scheme == "IOB2"
    assert "TAG_SCHEME is 'IOB2', but the tags of" in caplog.text
    assert "set TAG_SCHEME = 'IOB1'" in caplog.text
    bilou = made(written(file, "Ann U-P\nruns O\n"))
    assert (bilou.scheme, bilou.examples("train").examples[0].tags) == ("IOBES", ("S-P", "O"))


def test_each_row_has_as_many_columns_as_most(tmp_path: Path) -> None:
    # A word with a space in it loses its end where spaces separate the columns.
    for text, line in (("10 000 O\nAnn B-P\nx O\n", 1), ("Ann B-P\nx O\n\nNew York B-P\n", 4)):
        with pytest.raises(UserError, match=rf"a\.txt, line {line}: 3 columns; expected 2 .* needs tabs"):
            words_and_tags(written(tmp_path / "a.txt", text))


def test_a_document_begins_a_sentence(tmp_path: Path) -> None:
    file = written(tmp_path / "a.txt", "-DOCSTART- O\nAnn B-P\n-DOCSTART- O\nBob B-P\n")
    assert words_and_tags(file) == [(("Ann",), ("B-P",)), (("Bob",), ("B-P",))]


def test_line_ends_of_an_old_macintosh(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"Ann B-P\rruns O\r\rBob B-P\r")
    assert words_and_tags(file) == [(("Ann", "runs"), ("B-P", "O")), (("Bob",), ("B-P",))]


def test_what_stands_for_outside_is_no_part_of_speech(tmp_path: Path) -> None:
    assert recognised_scheme([["B-P", "I-P", "0", "0", "0"]]) == "IOB2"
    with pytest.raises(UserError, match=r"a\.txt, line 2: '0' is not a tag of IOB2"):
        made(written(tmp_path / "a.txt", "Ann B-P\nruns 0\nfast 0\n"))


def test_brackets_around_entities_are_no_tags(tmp_path: Path) -> None:
    file = written(tmp_path / "a.txt", "Ann (PER*\nLee *)\nruns *\nRome (LOC)\n")
    with pytest.raises(UserError, match=r"a\.txt: the tags of column -1 are brackets around entities"):
        made(file)
    assert made(file, tag_scheme="plain").labels == ("(LOC)", "(PER*", "*", "*)")
    assert made(written(file, "( (\nAnn NOUN\n")).scheme == "plain"


@pytest.mark.parametrize(
    ("tags", "scheme", "spans"),
    [
        ("B I O B B", "IOB2", [(0, 1), (3, 3), (4, 4)]),
        ("B- I- O B- B-", "IOB2", [(0, 1), (3, 3), (4, 4)]),
        ("B E O S S", "IOBES", [(0, 1), (3, 3), (4, 4)]),
        ("b l o u u", "IOBES", [(0, 1), (3, 3), (4, 4)]),
        # A segmentation of words, in which no character is outside.
        ("B M E B E", "IOBES", [(0, 2), (3, 4)]),
        ("I I O I O", "IOB1", [(0, 1), (3, 3)]),
    ],
)
def test_letters_without_types_are_entities_of_one_type(
    tmp_path: Path, tags: str, scheme: str, spans: list[tuple[int, int]]
) -> None:
    text = "".join(f"w{number}\t{tag}\n" for number, tag in enumerate(tags.split()))
    task = made(written(tmp_path / "a.txt", text))
    (example,) = task.examples("train").examples
    assert (task.scheme, task.main_metric) == (scheme, "f1")
    assert task.rules.spans_of(example.tags) == [(start, end, "ENTITY") for start, end in spans]
    # Where other tags have a type, a letter alone is a slip; where there are other letters, it is a part of speech.
    with pytest.raises(UserError, match=r"a\.txt, line 7: 'B' is not a tag of IOB2"):
        made(written(tmp_path / "a.txt", "a B-P\nb I-P\nc O\n\na B-P\n\nx B\n"))
    assert made(written(tmp_path / "a.txt", "a B\nb N\nc I\n")).scheme == "plain"


@pytest.mark.parametrize(("first", "second"), [("BPER", "IPER"), ("B/PER", "I/PER"), ("B|PER", "I|PER")])
def test_a_letter_without_its_hyphen_is_no_type(tmp_path: Path, first: str, second: str) -> None:
    file = written(tmp_path / "a.txt", f"Ann {first}\nLee {second}\nruns O\nRome {first[:-3]}LOC\n")
    message = rf"column -1 have no hyphen between the letter and the type, as '{first}' and '{second}': write them as"
    with pytest.raises(UserError, match=message.replace("|", r"\|")):
        made(file)
    assert first in made(file, tag_scheme="plain").labels
    # Types that begin with these letters.
    assert made(written(file, "Ann BOSS\nLee IDOL\nruns O\nRome BOSS\n")).scheme == "IO"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "The/DT dog/NN barks/VBZ ./.\nA/DT cat/NN sleeps/VBZ ./.\n",
            "joined by '/', as 'The/DT'; write a word a line",
        ),
        ("Ann_NNP\nruns_VBZ\n", "joined by '_', as 'Ann_NNP'; write a word a line"),
        (
            '{"tokens": ["Ann", "runs"], "ner_tags": [1, 0]}\n' * 2,
            r"an object of JSON, '{\"tokens\": \[\"Ann\", .*write a",
        ),
        ("T1\tPerson 0 3\tAnn\nR1\tIn Arg1:T1 Arg2:T2\n", r"brat's annotations apart from their text .*anntoconll\.py"),
        (
            "Ann runs .\nBob sleeps .\nWe all went home early .\nSo it is said .\nYes .\n",
            "from 2 to 6 columns a line, as",
        ),
    ],
)
def test_another_layout_than_columns_is_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"a\.txt, line 1: .*{message}"):
        made(written(tmp_path / "a.txt", text))


def test_marks_of_the_language_are_no_part_of_a_word(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.txt: each word begins with 'en:', the mark of its language: remove it"):
        made(written(tmp_path / "a.txt", "en:Ann\tB-PER\nen:runs\tO\n"))
    assert made(written(tmp_path / "a.txt", "en:Ann\tB-PER\nruns\tO\n")).scheme == "IOB2"


def test_a_single_tag_cannot_be_learnt(tmp_path: Path) -> None:
    file = written(tmp_path / "a.txt", "Ann B-P O\nruns O O\n")
    with pytest.raises(
        UserError, match="every word has the tag 'O', from which nothing can be learnt; set TAG_COLUMN, now"
    ):
        made(file)
    assert made(file, tag_column=1).scheme == "IOB2"


def test_a_rare_type_is_known_where_the_dev_split_has_it(tmp_path: Path) -> None:
    held_out = set()
    for month in ("April", "May", "June", "July"):
        text = "".join(f"Ann{number} B-PER\n\n" for number in range(9)) + f"{month} B-DATE\n"
        file = written(tmp_path / "a.txt", text)
        task = make_task(task_options("tagging", train_file=str(file), dev_fraction=0.5), VOCABULARY)
        assert {"B-DATE", "B-PER"} <= set(task.labels)
        held_out |= {tag for each in task.examples("dev").examples for tag in each.tags}
    assert "B-DATE" in held_out
