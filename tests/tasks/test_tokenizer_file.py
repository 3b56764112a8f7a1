"""Any tokenizer.json is read by `tokenizers`, its special tokens by their roles, and text can inject none of them."""

import dataclasses
import json
import pickle
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from electra_jax.errors import UserError
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS, SpecialTokens, build_tokenizer
from electra_jax.tasks.tokenizer_file import (
    TokenizerFile,
    load_tokenizer,
    read_of_directory,
    read_tokenizer_file,
    write_tokenizer,
)
from electra_jax.tasks.vocabulary import Vocabulary
from support.tokenizers import NASTY, SHAPES, tokenizer_json, write_tokenizer_json

ANGLED = SpecialTokens("<pad>", "<unk>", "<s>", "</s>", "<mask>")
ROLES = {
    "roberta": ANGLED,
    "modernbert": SPECIAL_TOKENS,
    "xlm_roberta": ANGLED,
    "deberta_v3": SPECIAL_TOKENS,
    "albert": SpecialTokens("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"),
    "bert": SPECIAL_TOKENS,
}


def read(folder: Path, shape: str) -> TokenizerFile:
    vocabulary = load_tokenizer(write_tokenizer_json(folder, shape), lowercase=None)
    assert isinstance(vocabulary, TokenizerFile)
    return vocabulary


@pytest.mark.parametrize("shape", SHAPES)
def test_ids_equal_those_of_the_library(shape: str, tmp_path: Path) -> None:
    ours, theirs = read(tmp_path, shape), Tokenizer.from_str(tokenizer_json(shape))
    for text in NASTY:
        expected = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text) == expected.ids, text
        assert ours.tokenizer.encode(text, add_special_tokens=False).tokens == expected.tokens
    assert ours.encode_batch(NASTY) == [ours.encode(text) for text in NASTY]
    assert ours.vocab_size == theirs.get_vocab_size()
    assert [theirs.token_to_id(token) for token in ours.tokens] == list(range(ours.vocab_size))


@pytest.mark.parametrize("shape", SHAPES)
def test_special_tokens_are_found_by_their_roles(shape: str, tmp_path: Path) -> None:
    vocabulary, theirs = read(tmp_path, shape), Tokenizer.from_str(tokenizer_json(shape))
    assert vocabulary.special == ROLES[shape]
    ids = [vocabulary.pad_id, vocabulary.unk_id, vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id]
    assert ids == [theirs.token_to_id(token) for token in ROLES[shape]]
    # The rows that the post-processor makes.
    text, pair = theirs.encode("the cat"), theirs.encode("the cat", "sat")
    first, second = vocabulary.encode("the cat"), vocabulary.encode("sat")
    assert text.ids == [vocabulary.cls_id, *first, vocabulary.sep_id]
    assert pair.ids == [vocabulary.cls_id, *first, *vocabulary.between_ids, *second, vocabulary.sep_id]
    assert len(vocabulary.between_ids) == (2 if ROLES[shape] == ANGLED else 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_special_tokens_in_the_text_are_only_text(shape: str, tmp_path: Path) -> None:
    vocabulary = read(tmp_path, shape)
    roles = {vocabulary.pad_id, vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id}
    words = " ".join(token for token in vocabulary.special if token)
    # The last is "<mask>" after NFKC.
    for text in (words, words.replace(" ", ""), "the cat<s>sat</s>", "the ＜mask＞ [ＭＡＳＫ]"):
        assert not roles & set(vocabulary.encode(text)), text
        # The worker processes of a cache get it pickled.
        assert pickle.loads(pickle.dumps(vocabulary)).encode(text) == vocabulary.encode(text)
    mask = vocabulary.special.mask
    (ids,) = vocabulary.encode_batch([f"the {mask} sat {vocabulary.special.sep} on"], read_mask=True)
    assert ids.count(vocabulary.mask_id) == 1
    assert not (roles - {vocabulary.mask_id}) & set(ids)


def test_added_tokens_without_a_role_are_read_whole(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(tokenizer_json("xlm_roberta"))
    tokenizer.add_special_tokens(["[URL]"])
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    vocabulary = load_tokenizer(tmp_path / "tokenizer.json", lowercase=None)
    assert vocabulary.tokens[vocabulary.encode("the [URL] sat")[2]] == "[URL]" or "[URL]" in [
        vocabulary.tokens[index] for index in vocabulary.encode("the [URL] sat")
    ]
    modern = read(tmp_path, "modernbert")
    assert [modern.tokens[index] for index in modern.encode("|||IP_ADDRESS|||")] == ["|||IP_ADDRESS|||"]


def test_pieces_of_words_follow_the_offsets(tmp_path: Path) -> None:
    words = ["Ann", "lives", "in", "我是", "\u200b", "New", "York", ",", "naïve"]
    for shape in SHAPES:
        vocabulary = read(tmp_path, shape)
        pieces = vocabulary.encode_words(words)
        assert [index for word in pieces for index in word] == vocabulary.encode(" ".join(words))
        assert len(pieces) == len(words)
        assert all(pieces[index] for index in (0, 1, 2, 3, 5, 6, 7, 8)), shape
    roberta = read(tmp_path, "roberta")
    assert roberta.encode_words(["the", "the"]) == [roberta.encode("the"), roberta.encode(" the")]


def test_tokens_are_shown_as_people_read_them(tmp_path: Path) -> None:
    text = "Le garçon naïf a mangé; हिन्दी में"
    for shape, before in (("roberta", ""), ("xlm_roberta", " "), ("deberta_v3", " ")):
        vocabulary = read(tmp_path, shape)
        shown = [vocabulary.shown_tokens[index] for index in vocabulary.encode(text)]
        # A character of several tokens shows as replacement characters.
        kept = "".join(shown).replace("\ufffd", "")
        assert kept.startswith(f"{before}Le gar")
        assert " a " in kept
        assert vocabulary.shown_tokens[vocabulary.mask_id] == vocabulary.special.mask
    assert read(tmp_path, "bert").shown_tokens == read(tmp_path, "bert").tokens


def test_roles_that_files_beside_the_tokenizer_state(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(tokenizer_json("roberta"))
    tokenizer.post_processor = None
    tokenizer.add_special_tokens(["<begin>", "<blank>"])
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    assert load_tokenizer(tmp_path / "tokenizer.json", lowercase=None).special == ANGLED
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"mask_token": {"content": "<blank>"}, "cls_token": None, "bos_token": "<begin>", "sep_token": "no"})
    )
    stated = ANGLED._replace(mask="<blank>", cls="<begin>")
    assert load_tokenizer(tmp_path / "tokenizer.json", lowercase=None).special == stated
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"cls_token": "<s>", "mask_token": None}))
    found = load_tokenizer(tmp_path / "tokenizer.json", lowercase=None)
    assert found.special == stated._replace(cls="<s>")
    # Without a post-processor a pair is laid out as BERT's.
    assert found.between_ids == (found.sep_id,)


def test_a_language_models_mark_of_the_end_stands_around_rows(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(tokenizer_json("modernbert"))
    values = json.loads(tokenizer.to_str()) | {"post_processor": None}
    values["added_tokens"] = [
        entry | {"content": {"[CLS]": "a0", "[SEP]": "a1", "[PAD]": "a2"}.get(entry["content"], entry["content"])}
        for entry in values["added_tokens"]
    ]
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    special = load_tokenizer(tmp_path / "tokenizer.json", lowercase=None).special
    assert (special.cls, special.sep, special.pad) == ("<|endoftext|>", "<|endoftext|>", "<|padding|>")


def test_a_tokenizer_without_a_mask_is_refused(tmp_path: Path) -> None:
    values = json.loads(tokenizer_json("roberta"))
    values["added_tokens"] = [entry for entry in values["added_tokens"] if entry["content"] != "<mask>"]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"tokenizer.json: .* has no mask token \(mask_token\): add it with") as caught:
        load_tokenizer(path, lowercase=None)
    assert "special_tokens_map.json" in str(caught.value)
    assert "`electra vocab`" in str(caught.value)
    # Following the advice.
    mended = Tokenizer.from_file(str(path))
    mended.add_special_tokens(["<blank>"])
    mended.save(str(path))
    (tmp_path / "special_tokens_map.json").write_text('{"mask_token": "<blank>"}')
    assert load_tokenizer(path, lowercase=None).special.mask == "<blank>"


def test_a_tokenizer_without_a_classification_token_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(
        json.dumps(
            json.loads(build_tokenizer(["[UNK]", "[MASK]", "a"], lowercase=False, strip_accents=False).to_str())
            | {"pre_tokenizer": None}
        )
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"no classification token \(cls_token\) and no separator \(sep_token\): add"):
        load_tokenizer(tmp_path / "tokenizer.json", lowercase=None)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("tokenizer.json", "{", "cannot be read"),
        ("tokenizer.json", "[]", "it is not the JSON of a tokenizer"),
        ("tokenizer.json", '{"model": {"type": "Strange"}}', "cannot be read"),
        (
            "tokenizer.json",
            '{"model": {"type": "WordPiece", "vocab": {"a": 4294967295, "b": 0}, "unk_token": "[UNK]", '
            '"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}}',
            "the token 'a' has the id 4294967295, and there may be 16777216 entries",
        ),
        (
            "tokenizer.json",
            '{"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, "model": {"type": "WordLevel", '
            '"vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}}',
            "Cannot parse precompiled_charsmap",
        ),
        ("vocab.json", '{"the": 0}', "it is not the JSON of a tokenizer"),
        ("spm.model", "x", "is a SentencePiece model: save its tokenizer.json"),
        ("missing.json", None, "cannot be read .No such file"),
    ],
)
def test_files_that_are_no_tokenizer_are_refused(name: str, content: str | None, sentence: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=sentence):
        load_tokenizer(tmp_path / name, lowercase=None)


def test_a_casing_is_not_asked_of_a_tokenizer_json(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="says itself how text is read: leave LOWERCASE unset"):
        load_tokenizer(write_tokenizer_json(tmp_path, "albert"), lowercase=True)


def test_the_fingerprint_is_that_of_the_ids(tmp_path: Path) -> None:
    vocabulary = read(tmp_path, "roberta")
    values = json.loads(vocabulary.definition)
    spaced = dataclasses.replace(vocabulary, definition=json.dumps(values, indent=2))
    assert spaced.fingerprint == vocabulary.fingerprint
    padded = values | {"truncation": {"max_length": 9, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}}
    padded["model"] = values["model"] | {"dropout": 0.9}
    cut = dataclasses.replace(vocabulary, definition=json.dumps(padded))
    assert cut.fingerprint == vocabulary.fingerprint
    # Not a row of nine tokens, and each time the same.
    assert cut.encode(NASTY[2]) == vocabulary.encode(NASTY[2])
    values["model"]["merges"][0], values["model"]["merges"][1] = values["model"]["merges"][1::-1]
    assert dataclasses.replace(vocabulary, definition=json.dumps(values)).fingerprint != vocabulary.fingerprint
    template = json.loads(tokenizer_json("albert"))["post_processor"]
    one = json.loads(json.dumps(template).replace("[CLS]", "<s>").replace("[SEP]", "</s>"))
    one["special_tokens"]["<s>"]["ids"], one["special_tokens"]["</s>"]["ids"] = [0], [2]
    single = dataclasses.replace(vocabulary, definition=json.dumps(values | {"post_processor": one}))
    assert len(single.between_ids) == 1
    assert single.fingerprint != vocabulary.fingerprint
    other = vocabulary.named._replace(sep="<s>")
    assert dataclasses.replace(vocabulary, named=other).fingerprint != vocabulary.fingerprint
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary
    assert hash(spaced) == hash(vocabulary)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_directory_gives_back_what_was_written(shape: str, tmp_path: Path) -> None:
    vocabulary = read(tmp_path, shape)
    (tmp_path / "model").mkdir()
    write_tokenizer(tmp_path / "model", vocabulary)
    assert read_of_directory(tmp_path / "model") == vocabulary
    assert (tmp_path / "model" / "tokenizer.json").read_text() == tokenizer_json(shape)
    assert read_of_directory(tmp_path / "nothing") is None


def test_a_tokenizer_json_of_a_vocab_txt_is_that_vocab_txt(tmp_path: Path) -> None:
    for lowercase, strip_accents in ((True, True), (True, False), (False, False)):
        vocabulary = Vocabulary([*SPECIAL_TOKENS, "a", "##b"], lowercase, strip_accents)
        tokenizer = build_tokenizer(vocabulary.tokens, lowercase=lowercase, strip_accents=strip_accents)
        tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        assert read_tokenizer_file(tmp_path / "tokenizer.json") == vocabulary


@pytest.mark.parametrize("shape", SHAPES)
def test_a_word_begins_where_a_space_or_punctuation_does(shape: str, tmp_path: Path) -> None:
    vocabulary = read(tmp_path, shape)
    ids = vocabulary.encode("Le garçon, naïf 我是 ภาษา")
    texts: list[str] = []
    for index in ids:
        text = vocabulary.tokens[index]
        if vocabulary.begins_word[index] or not texts:
            texts.append(text)
        else:
            texts[-1] += text.removeprefix("##")
    words = [text.strip("▁Ġ") for text in texts]
    assert words[0].lower() == "le", words
    assert {word for word in words if word.startswith(",")} <= {","}
    assert any(word.lower().startswith("gar") and word.endswith("on") for word in words)
    assert all(
        vocabulary.begins_word[index] for role, index in vocabulary.special_ids.items() if role in ("mask", "unk")
    )


def test_a_tokenizer_without_marks_of_words_is_refused_for_words(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE({"[CLS]": 0, "[SEP]": 1, "[MASK]": 2, "a": 3, "b": 4}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = load_tokenizer(tmp_path / "tokenizer.json", lowercase=None)
    with pytest.raises(UserError, match="do not show which of them begin a word: set MASK_UNIT to 'token'"):
        _ = vocabulary.begins_word
