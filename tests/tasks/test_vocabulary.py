"""WordPiece ids equal BERT's own; vocabularies are read, refused and trained as promised."""

import pathlib
import pickle
import subprocess
import sys
import unicodedata

import pytest
import tensorflow as tf
from tokenizers import BertWordPieceTokenizer

from electra_jax.errors import UserError
from electra_jax.tasks.seqio_vocabulary import SeqioVocabulary
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary, load_vocabulary, write_vocab_file
from electra_jax.tasks.wordpieces import learn_wordpieces

# Pieces that split, join, vanish or turn into [UNK] in every way that BERT knows.
PIECES = (
    "a b c ab abc the un ##a ##b ##c ##ab ##bc ##able ##s é E É e ##e ! ? , [ ] mask Mask sep 我 是 ß ς σ ο ##ς ##σ ##ο"
)
TOKENS = [*SPECIAL_TOKENS, *PIECES.split()]

NASTY = [
    "",
    " \t\n\r ",
    "the abc, unable!?  ab\tc",
    "É é é E\u0301 abc\u0301",
    "a\u200bb a\u00adb a\x00b a\ufffdb a\x07b a\u2028b a\u3000b a\u00a0b",
    "我是 a我b是c ㄅ ア 한국",
    "😀 a😀b 👩‍👩‍👧 🇫🇷",
    "ß ﬁ Ａ ² ǆ İ",
    "a" * 100,
    "!" * 250,
    "a-b_c.d`e^f~g$h+i<j=k>l|m",
    "עִבְרִית हिन्दी ไทย",
]


def vocabulary(*, lowercase: bool = True, strip_accents: bool | None = None) -> Vocabulary:
    strip = lowercase if strip_accents is None else strip_accents
    return Vocabulary(TOKENS, lowercase=lowercase, strip_accents=strip)


def write_vocabulary(folder: pathlib.Path, tokens: list[str]) -> str:
    path = folder / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [True, False])
def test_ids_equal_those_of_the_library(lowercase: bool, strip_accents: bool) -> None:
    ours = vocabulary(lowercase=lowercase, strip_accents=strip_accents)
    theirs = BertWordPieceTokenizer(
        {token: index for index, token in enumerate(TOKENS)}, lowercase=lowercase, strip_accents=strip_accents
    )
    for text in NASTY:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids, text
    assert ours.encode_batch(NASTY) == [ours.encode(text) for text in NASTY]


def test_ids_worked_by_hand() -> None:
    ours = vocabulary()
    tokens = lambda text: [TOKENS[index] for index in ours.encode(text)]  # noqa: E731
    assert tokens("Unables") == ["un", "##able", "##s"]
    assert tokens("zebra abc") == ["[UNK]", "abc"]
    assert tokens("a我b") == ["a", "我", "b"]
    assert tokens("É") == ["e"]
    assert [TOKENS[index] for index in vocabulary(lowercase=False).encode("É")] == ["É"]


def test_special_tokens_in_the_text_are_only_text() -> None:
    ours = vocabulary()
    ids = ours.encode("[MASK] [SEP] [CLS] [PAD] [UNK]")
    assert not {ours.mask_id, ours.sep_id, ours.cls_id, ours.pad_id} & set(ids)
    assert [TOKENS[index] for index in ours.encode("[MASK]")] == ["[", "mask", "]"]
    cased = vocabulary(lowercase=False)
    assert [TOKENS[index] for index in cased.encode("[SEP]")] == ["[", "[UNK]", "]"]


def test_the_mask_is_read_when_asked() -> None:
    ours = vocabulary()
    text = "[MASK] the[MASK]abc [SEP]"
    the, abc, *rest = (ours.encode(part) for part in ("the", "abc", "[SEP]"))
    assert ours.encode_batch([text, "the"], read_mask=True) == [[ours.mask_id, *the, ours.mask_id, *abc, *rest[0]], the]
    assert ours.mask_id not in ours.encode_batch([text])[0]


def test_words_have_up_to_200_characters() -> None:
    ours = vocabulary()
    assert len(ours.encode("b" + "a" * 199)) == 200
    assert ours.encode("b" + "a" * 200) == [ours.unk_id]


def test_what_the_library_does_not_do_as_the_original() -> None:
    ours = vocabulary()
    tokens = lambda text: [TOKENS[index] for index in ours.encode(text)]  # noqa: E731
    assert tokens("ΟΣ ΣΟ Σ") == ["ο", "##ς", "σ", "##ο", "σ"]  # Python's final sigma
    # What is dropped has no say in it, and however many marks stand between.
    for dropped in ("\x00", "\x0b", "\x1f", "\x85", "\ufffd", "\ue000", "\u200d"):
        assert tokens(f"Ο{dropped}Σ Σ{dropped}Ο") == ["ο", "##ς", "σ", "##ο"], ascii(dropped)
    assert tokens("Ο" + "\u0301" * 7 + "Σ") == ["ο", "##ς"]
    assert tokens("a\ue001b a\u0378b") == ["ab", "ab"]  # private and unassigned characters vanish
    assert tokens("a\ufe2eb") == ["ab"]  # a mark newer than the library's table of them
    assert tokens("\U0002b820\U0002b821") == ["[UNK]", "[UNK]"]  # each ideograph is a word


def test_offsets_point_into_the_text() -> None:
    text = "Thé ab\u200bc 我"
    encoding = vocabulary().tokenizer.encode(text, add_special_tokens=False)
    words = [text[start:end] for start, end in encoding.offsets]
    assert (words[0], words[-1]) == ("Thé", "我")


def test_decode_is_not_cut_at_a_separator() -> None:
    ours = vocabulary()
    ids = [ours.cls_id, *ours.encode("unables"), ours.sep_id, *ours.encode("abc")]
    assert SeqioVocabulary(ours).decode(ids) == "[CLS] unables [SEP] abc"


def test_tensorflow_gives_the_same_ids() -> None:
    ours = vocabulary()
    of_seqio = SeqioVocabulary(ours)
    dataset = tf.data.Dataset.from_tensor_slices(["the ABC, É 我", ""]).map(of_seqio.encode_tf)
    assert [ids.tolist() for ids in dataset.as_numpy_iterator()] == ours.encode_batch(["the ABC, É 我", ""])
    assert of_seqio.encode("the ABC, É 我") == ours.encode("the ABC, É 我")
    assert of_seqio.decode_tf(tf.constant(ours.encode("unables abc"))).numpy() == b"unables abc"
    assert (of_seqio.vocab_size, of_seqio.pad_id, of_seqio.unk_id) == (len(TOKENS), ours.pad_id, ours.unk_id)
    assert (of_seqio.bos_id, of_seqio.eos_id) == (ours.cls_id, None)


def test_seqio_compares_entries_and_casing() -> None:
    assert SeqioVocabulary(vocabulary()) == SeqioVocabulary(vocabulary())
    assert hash(SeqioVocabulary(vocabulary())) == hash(SeqioVocabulary(vocabulary()))
    assert SeqioVocabulary(vocabulary()) != SeqioVocabulary(vocabulary(lowercase=False))


def test_pickling_keeps_everything() -> None:
    ours = vocabulary(strip_accents=False)
    copy = pickle.loads(pickle.dumps(ours))
    assert copy == ours
    assert copy.fingerprint == ours.fingerprint
    assert copy.encode("é abc") == ours.encode("é abc")
    assert vocabulary(strip_accents=True) != ours
    assert pickle.loads(pickle.dumps(ours.tokenizer)).encode("é abc").ids == ours.encode("é abc")


def test_tokenizing_needs_no_tensorflow() -> None:
    code = "import sys, electra_jax.tasks.vocabulary; "
    code += "sys.exit(bool({'tensorflow', 'seqio', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_loading_finds_the_casing(tmp_path: pathlib.Path) -> None:
    cased = write_vocabulary(tmp_path, [*SPECIAL_TOKENS, "[unused1]", "The", "the"])
    assert not load_vocabulary(cased, lowercase=None).lowercase
    assert not load_vocabulary(cased, lowercase=None).strip_accents
    assert load_vocabulary(cased, lowercase=True).lowercase
    uncased = load_vocabulary(write_vocabulary(tmp_path, [*SPECIAL_TOKENS, "[unused1]", "the"]), lowercase=None)
    assert (uncased.lowercase, uncased.strip_accents, uncased.vocab_size) == (True, True, 7)
    assert (uncased.pad_id, uncased.unk_id, uncased.cls_id, uncased.sep_id, uncased.mask_id) == (0, 1, 2, 3, 4)


def test_the_record_decides_and_is_not_contradicted(tmp_path: pathlib.Path) -> None:
    path = write_vocabulary(tmp_path, [*SPECIAL_TOKENS, "the"])
    record = tmp_path / "vocab.json"
    record.write_text('{"lowercase": false, "strip_accents": false}')
    assert not load_vocabulary(path, lowercase=None).lowercase
    assert not load_vocabulary(path, lowercase=False).lowercase
    with pytest.raises(UserError, match=r"lowercase=False.*lowercase=True was asked"):
        load_vocabulary(path, lowercase=True)
    record.write_text('{"lowercase": "no", "strip_accents": false}')
    with pytest.raises(UserError, match=r"vocab\.json"):
        load_vocabulary(path, lowercase=None)


def test_bad_vocabularies_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.txt cannot be read"):
        load_vocabulary(str(tmp_path / "nowhere.txt"), lowercase=None)
    with pytest.raises(UserError, match=r"lacks \[CLS\], \[MASK\]"):
        load_vocabulary(write_vocabulary(tmp_path, ["[PAD]", "[UNK]", "[SEP]", "a"]), lowercase=None)
    with pytest.raises(UserError, match="'a' twice, on lines 6 and 8"):
        load_vocabulary(write_vocabulary(tmp_path, [*SPECIAL_TOKENS, "a", "b", "a"]), lowercase=None)
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.txt cannot be read"):
        load_vocabulary(str(tmp_path / "latin.txt"), lowercase=None)


def test_line_ends_of_other_systems_and_odd_entries(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join([*SPECIAL_TOKENS, "a", "\u2028", "b", ""]).encode("utf-8-sig"))
    assert load_vocabulary(str(path), lowercase=None).tokens == [*SPECIAL_TOKENS, "a", "\u2028", "b"]


def train(texts: list[str], **changes: object) -> Vocabulary:
    arguments = {
        "vocab_size": 60,
        "lowercase": True,
        "strip_accents": True,
        "min_frequency": 2,
        "limit_alphabet": 100,
        "show_progress": False,
    }
    return learn_wordpieces(iter(texts), **(arguments | changes)).vocabulary


TEXTS = ["The lower newest widest cafés.", "lower lowest newer wider lowing", "x" * 201] * 20


def test_training_writes_what_loading_reads(tmp_path: pathlib.Path) -> None:
    trained = train(TEXTS)
    assert trained.tokens[:5] == list(SPECIAL_TOKENS)
    assert {"low", "##est", "e"} & set(trained.tokens)
    assert trained.unk_id not in trained.encode(f"THE LOWEST CAFÉ {'x' * 500}.")
    write_vocab_file(tmp_path / "vocab.txt", trained)
    loaded = load_vocabulary(str(tmp_path / "vocab.txt"), lowercase=None)
    assert loaded == trained
    with pytest.raises(UserError, match="was asked for"):
        load_vocabulary(str(tmp_path / "vocab.txt"), lowercase=False)
    cased = train(TEXTS, lowercase=False, strip_accents=False)
    assert "T" in cased.tokens
    assert "é" in "".join(cased.tokens)


def test_training_is_reproducible() -> None:
    words = [f"{a}{b}{c}{d}" for a in "abcdefg" for b in "hijklm" for c in "opqrst" for d in "uvwxyz"]
    vocabularies = [train([" ".join(words)], vocab_size=400).tokens for _ in range(3)]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]
    # Twenty characters of one frequency, ten of which are kept.
    rare = ["".join(chr(ord("a") + (start + step) % 20) for step in range(5)) for start in range(20)] * 3
    limited = [train(rare, vocab_size=100, limit_alphabet=10).tokens for _ in range(3)]
    assert limited[0] == limited[1] == limited[2]
    assert {token for token in limited[0] if len(token) == 1} == set("abcdefghij")


def test_training_refuses_what_cannot_be() -> None:
    with pytest.raises(UserError, match="no text"):
        train(["", "  "])
    with pytest.raises(UserError, match=r"VOCAB_SIZE 10 cannot hold .* LIMIT_ALPHABET"):
        train(TEXTS, vocab_size=10)
    assert train(TEXTS, limit_alphabet=3).vocab_size < 60


def test_the_alphabet_covers_the_text_whatever_its_script() -> None:
    """A thousand characters, the limit of earlier versions, are a quarter of a Chinese text's."""
    ideographs = [chr(0x4E00 + number) for number in range(3000)]
    text = ["".join(ideographs[start : start + 20]) + "。" for start in range(0, 3000, 20)]
    learned = train(text, vocab_size=4000, limit_alphabet=None)
    assert not [each for each in ideographs if each not in learned.tokens]
    assert learned.unk_id not in learned.encode("".join(text))
    # One rare character in 100,000 is none of the 99.99 %.
    common = train(["ab" * 50_000 + " q"], limit_alphabet=None)
    assert {"a", "b"} <= set(common.tokens)
    assert "q" not in common.tokens


def test_a_letter_is_one_letter_however_it_was_typed() -> None:
    composed, apart = (unicodedata.normalize(form, "niño ガ 한국어 हिन्दी") for form in ("NFC", "NFD"))
    learned = train([composed] * 3, lowercase=False, strip_accents=False)
    assert learned.encode(composed) == learned.encode(apart)
    assert learned.unk_id not in learned.encode(composed)
    # BERT's reading, that of vocabularies without the record, stays.
    bert = Vocabulary(learned.tokens, lowercase=False, strip_accents=False)
    assert bert.encode(composed) == learned.encode(composed)
    assert bert.encode(apart) != learned.encode(apart)
    assert bert.fingerprint != learned.fingerprint


def test_a_fingerprint_of_earlier_versions_stays() -> None:
    """Caches and checkpoints are found by it."""
    assert vocabulary().fingerprint == "e38c688366bbc850"
    assert pickle.loads(pickle.dumps(train(TEXTS))) == train(TEXTS)


def test_long_words_are_read_in_parts_that_keep_marks() -> None:
    learned = train(["กิน" * 400, "ACGT" * 500], vocab_size=100, lowercase=False, strip_accents=False)
    for text in ("กิน" * 1000, "ACGT" * 10_000, "ก" + "็" * 450):
        ids = learned.encode(text)
        assert learned.tokenizer.decode(ids).replace(" ", "") == text if "็" not in text else ids
    assert learned.unk_id not in learned.encode("กิน" * 1000)
    words = learned.tokenizer.pre_tokenizer.pre_tokenize_str("กิ" * 150)
    assert [(len(word), word[0]) for word, _ in words] == [(200, "ก"), (100, "ก")]
