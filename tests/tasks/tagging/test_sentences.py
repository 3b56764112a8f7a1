"""Column files, entities as conlleval counts them, and the word piece that carries a word's label."""

import itertools
import random
from pathlib import Path

import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.original.tagging import RULES as ORIGINAL_RULES
from electra_jax.tasks.original.tagging import observed_labels, read_spans
from electra_jax.tasks.protocol import Examples
from electra_jax.tasks.tagging.conlleval import (
    EntityEvaluation,
    Scores,
    Span,
    conlleval_spans,
    evaluate_tags,
    read_tagged_output,
    split_tag,
)
from electra_jax.tasks.tagging.sentences import (
    STANDARD_RULES,
    TaggingFeatures,
    TaggingRules,
    complete_labels,
    encoded_tags,
    predicted_tags,
    read_tagged_file,
    tagging_features,
    tags_of,
    without_unseen_types,
)
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary
from support.shared import DATA, needs

CONLL2000 = DATA / "conll2000"
needs_data = needs(CONLL2000)

PIECES = ["a", "b", "c", "un", "##a", "##b", "##c", "東", "京", "##京", "[", "]", "cls"]
VOCABULARY = Vocabulary([*SPECIAL_TOKENS, *PIECES], lowercase=True, strip_accents=True)
PAD, UNK, CLS, SEP, MASK, A, B, C, UN, PIECE_A, PIECE_B, PIECE_C, EAST, CAPITAL, PIECE_CAPITAL = range(15)


def read(path: Path, *, skip: bool = False, scheme: str = "IOB2", tag_column: int | None = -1) -> Examples:
    return read_tagged_file(path, word_column=0, tag_column=tag_column, scheme=scheme, skip_bad_rows=skip)


def written(folder: Path, text: str) -> Path:
    path = folder / "train.txt"
    path.write_text(text, encoding="utf-8")
    return path


def features(
    words: list[str], label_ids: list[int], *, length: int, rules: TaggingRules = STANDARD_RULES
) -> TaggingFeatures:
    return tagging_features(words, label_ids, vocabulary=VOCABULARY, length=length, rules=rules)


@needs_data
def test_conlleval_prints_what_the_official_script_printed() -> None:
    gold, predicted = read_tagged_output(CONLL2000 / "conlleval/output.txt")
    report = evaluate_tags(gold, predicted, spans_of=conlleval_spans).report()
    assert report == (CONLL2000 / "conlleval/result.txt").read_text()


@needs_data
@pytest.mark.parametrize(("split", "sentences", "words"), [("train", 8936, 211727), ("test", 2012, 47377)])
def test_conll2000_has_the_published_size(split: str, sentences: int, words: int) -> None:
    file = read(CONLL2000 / f"{split}.txt")
    assert len(file.examples) == sentences
    assert sum(len(sentence.words) for sentence in file.examples) == words
    assert not file.skipped
    for sentence in file.examples:
        # IOB2 without breaks: every reader and encoding gives the same entities back.
        assert encoded_tags(sentence.tags, spans_of=conlleval_spans, encoding="BIO") == list(sentence.tags)
        iobes = encoded_tags(sentence.tags, spans_of=read_spans, encoding="BIOES")
        assert conlleval_spans(iobes) == conlleval_spans(sentence.tags)


@needs_data
def test_a_tag_that_only_the_test_split_has_can_be_learned() -> None:
    train, test = read(CONLL2000 / "train.txt"), read(CONLL2000 / "test.txt")
    seen = observed_labels([train.examples], "BIO")
    labels = complete_labels([train.examples], "BIO")
    assert "I-LST" not in seen
    assert "I-LST" in labels
    assert set(seen) < set(labels)
    assert without_unseen_types(test, labels, place="test", skip_bad_rows=False).examples == test.examples


@pytest.mark.parametrize(
    "tags",
    [
        ["I-PER", "I-PER", "O", "I-LOC", "B-LOC", "I-ORG"],  # IOB1: B only between neighbours of one type
        ["B-PER", "I-PER", "O", "B-LOC", "B-LOC", "B-ORG"],
        ["B-PER", "E-PER", "O", "S-LOC", "S-LOC", "S-ORG"],
        ["B-PER", "I-PER", "O", "I-LOC", "B-LOC", "I-ORG"],  # a mixture is repaired
        ["I-PER", "E-PER", "O", "E-LOC", "S-LOC", "E-ORG"],
    ],
)
def test_schemes_are_read_alike(tags: list[str]) -> None:
    assert conlleval_spans(tags) == [(0, 1, "PER"), (3, 3, "LOC"), (4, 4, "LOC"), (5, 5, "ORG")]


def test_readers_differ_where_the_original_is_at_fault() -> None:
    assert conlleval_spans(["B-NP", "I-VP"]) == [(0, 0, "NP"), (1, 1, "VP")]
    assert read_spans(["B-NP", "I-VP"]) == [(0, 1, "VP")]
    assert conlleval_spans(["E-NP", "E-NP"]) == [(0, 0, "NP"), (1, 1, "NP")]
    assert read_spans(["E-NP", "E-NP"]) == [(0, 1, "NP")]


def test_types_may_hold_hyphens() -> None:
    assert split_tag("B-X-Y") == ("B", "X-Y")
    assert tags_of(conlleval_spans(["B-X-Y", "I-X-Y"]), 2, encoding="BIOES") == ["B-X-Y", "E-X-Y"]


@pytest.mark.parametrize("encoding", ["BIO", "BIOES", "IOB1"])
def test_entities_survive_writing_and_reading(encoding: str) -> None:
    draw = random.Random(encoding)
    for _ in range(300):
        spans, position = [], 0
        while position < 12:
            end = min(11, position + draw.randint(0, 3))
            if draw.random() < 0.6:
                spans.append(Span(position, end, draw.choice(["X", "Y"])))
            position = end + 1
        tags = tags_of(spans, 12, encoding=encoding)
        assert conlleval_spans(tags) == spans
        # The original does not read IOB1, in which a type can change without B.
        assert encoding == "IOB1" or read_spans(tags) == spans


def perl_counts(pairs: list[tuple[str, str]]) -> tuple[int, int, int]:
    """The counting loop of conlleval.pl over B, I and O, word by word: (gold, found, correct)."""

    def split(tag: str) -> list[str]:
        return tag.split("-") if "-" in tag else [tag, ""]

    def ends(last: str, last_type: str, tag: str, kind: str) -> bool:
        return (last in "BI" and tag in "BO") or (last != "O" and last_type != kind)

    def starts(last: str, last_type: str, tag: str, kind: str) -> bool:
        return tag == "B" or (last == "O" and tag == "I") or (tag != "O" and last_type != kind)

    gold = found = correct = 0
    within = False
    last_gold = last_found = ["O", ""]
    for gold_tag, found_tag in [*pairs, ("O", "O")]:
        now_gold, now_found = split(gold_tag), split(found_tag)
        end_gold, end_found = ends(*last_gold, *now_gold), ends(*last_found, *now_found)
        if within:
            if end_gold and end_found and last_gold[1] == last_found[1]:
                within = False
                correct += 1
            elif end_gold != end_found or now_gold[1] != now_found[1]:
                within = False
        start_gold, start_found = starts(*last_gold, *now_gold), starts(*last_found, *now_found)
        within = within or (start_gold and start_found and now_gold[1] == now_found[1])
        gold += start_gold
        found += start_found
        last_gold, last_found = now_gold, now_found
    return gold, found, correct


def test_counts_equal_those_of_the_perl_loop_on_any_sequence() -> None:
    draw = random.Random(3)
    tags = ["O", "B-X", "I-X", "B-Y", "I-Y"]
    for _ in range(500):
        gold = [draw.choice(tags) for _ in range(9)]
        predicted = [tag if draw.random() < 0.7 else draw.choice(tags) for tag in gold]
        overall = evaluate_tags([gold], [predicted], spans_of=conlleval_spans).overall
        assert (overall.gold, overall.found, overall.correct) == perl_counts(list(zip(gold, predicted, strict=True)))


def test_scores_worked_by_hand() -> None:
    evaluation = evaluate_tags([["B-X", "I-X", "O"], ["B-Y"]], [["B-X", "I-X", "B-Y"], ["O"]], spans_of=conlleval_spans)
    assert evaluation == EntityEvaluation(4, 2, Scores(2, 2, 1), {"X": Scores(1, 1, 1), "Y": Scores(1, 1, 0)})
    assert evaluation.overall.f1 == 50.0
    assert Scores(0, 0, 0).f1 == 0.0


def test_an_entity_ends_with_its_sentence() -> None:
    apart = evaluate_tags([["B-X"], ["I-X"]], [["B-X"], ["I-X"]], spans_of=conlleval_spans)
    assert apart.overall.gold == 2


def test_file_with_documents_and_its_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n\n\nPeter NNP I-NP I-PER")
    file = read(path, scheme="IOB1")
    assert [(s.words, s.tags, s.line) for s in file.examples] == [
        (("EU", "rejects"), ("I-ORG", "O"), 3),
        (("Peter",), ("I-PER",), 7),
    ]
    assert read(path, scheme="IOB1", tag_column=2).examples[0].tags == ("I-NP", "I-VP")


def test_file_without_tags(tmp_path: Path) -> None:
    (sentence,) = read(written(tmp_path, "one\ntwo\n"), tag_column=None).examples
    assert (sentence.words, sentence.tags) == (("one", "two"), ())


def test_bad_rows_are_told_or_counted(tmp_path: Path) -> None:
    path = written(tmp_path, "a X O\nb O\n\na X B-P\n\nc X Q-P\n\nd X S-P\n")
    with pytest.raises(UserError, match=r"train\.txt, line 2: 2 columns; expected 3"):
        read(path)
    file = read(path, skip=True)
    assert [sentence.words for sentence in file.examples] == [("a",)]
    assert file.skipped == {"2 columns": 1, "'Q-P' is not a tag of IOB2": 1, "'S-P' is not a tag of IOB2": 1}
    assert len(read(path, skip=True, scheme="IOBES").examples) == 2


def test_types_unseen_in_training(tmp_path: Path) -> None:
    file = read(written(tmp_path, "a O\nb B-P\n\nc O\nd B-Q\n"))
    labels = ["B-P", "I-P", "O"]
    with pytest.raises(UserError, match=r"train\.txt, line 5: the type of 'B-Q' was never seen.*one of P"):
        without_unseen_types(file, labels, place=str(file.file), skip_bad_rows=False)
    kept = without_unseen_types(file, labels, place=str(file.file), skip_bad_rows=True)
    assert [sentence.words for sentence in kept.examples] == [("a", "b")]
    assert kept.skipped.total() == 1


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"\n \n", "is empty"), (b"a \xff O\n", "line 1: not UTF-8")]
)
def test_useless_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(path)
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "absent.txt")
    with pytest.raises(UserError, match="scheme 'BIOX' is unknown"):
        read(path, scheme="BIOX")


def test_tagged_output_of_one_column(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 2: one column"):
        read_tagged_output(written(tmp_path, "a O O\nb\n"))


def test_the_first_piece_of_each_word_carries_its_label() -> None:
    ours = features(["unab", "A.", "\u200b", "東京", "c"], [4, 5, 6, 7, 8], length=16)
    assert ours.input_ids == [CLS, UN, PIECE_A, PIECE_B, A, UNK, UNK, EAST, CAPITAL, C, SEP]
    assert ours.word_positions == [1, 4, 6, 7, 9]
    assert ours.label_ids == [4, 5, 6, 7, 8]
    assert ours.token_type_ids == [0] * 11


def test_the_originals_alignment_moves_labels() -> None:
    theirs = features(["unab", "\u200b", "[CLS]", "東京"], [4, 5, 6, 7], length=16, rules=ORIGINAL_RULES)
    assert theirs.input_ids == [CLS, UN, PIECE_A, PIECE_B, CLS, EAST, PIECE_CAPITAL, SEP]
    assert theirs.word_positions == [1, 4, 5]  # the second points at the [CLS] in the text
    assert theirs.label_ids == [4, 5, 6]  # and the last word has the label of the word before


@pytest.mark.parametrize("length", range(3, 14))
def test_what_does_not_fit_is_cut_and_predicted_as_outside(length: int) -> None:
    words, label_ids = ["a", "unabc", "b", "unabc", "c"], [0, 1, 0, 1, 0]
    whole = features(words, label_ids, length=99)
    cut = features(words, label_ids, length=length)
    assert len(cut.input_ids) == min(length, len(whole.input_ids))
    assert cut.input_ids == [*whole.input_ids[: len(cut.input_ids) - 1], SEP]
    assert cut.word_positions == [place for place in whole.word_positions if place < len(cut.input_ids) - 1]
    tags = predicted_tags(cut.label_ids, len(words), ["O", "B-X"])
    assert len(tags) == 5
    assert tags == ["O", "B-X", "O", "B-X", "O"][: len(cut.label_ids)] + ["O"] * (5 - len(cut.label_ids))


def test_the_originals_truncation_keeps_one_word_of_sixty() -> None:
    words = list(itertools.islice(itertools.cycle("ab"), 60))
    assert features(words, [0] * 60, length=64, rules=ORIGINAL_RULES).word_positions == [1]
    assert features(words, [0] * 60, length=64).word_positions == list(range(1, 61))
    long_word = features(["a" + "b" * 120], [0], length=64, rules=ORIGINAL_RULES)
    assert len(long_word.input_ids) == 64  # the original stops with an assertion
