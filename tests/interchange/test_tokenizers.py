"""A tokenizer.json is kept: the same ids before `electra import`, in the model, and after `electra export`."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

import electra_jax
from electra_jax.cli import main
from electra_jax.interchange import hf
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.tokenizer_file import TokenizerFile, tokenizer_of
from electra_jax.tasks.vocabulary import Vocabulary
from support.hf_models import model_with
from support.text_rows import text_features
from support.tokenizers import NASTY, SHAPES, tokenizer_json

PAIRS = [("the cat sat", "on the mat"), ("naïf", "我是")]


def directory_of(folder: Path, definition: str, **beside: dict[str, Any]) -> Path:
    """A directory of transformers with a tokenizer.json, and the files `beside` it by their names without suffix."""
    hf.write(model_with(tokenizer_of(definition, [])), folder)
    for name in ("tokenizer_config", "special_tokens_map"):
        (folder / f"{name}.json").unlink()
    (folder / "vocab.txt").unlink(missing_ok=True)
    (folder / "tokenizer.json").write_text(definition, encoding="utf-8")
    for name, values in beside.items():
        (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


@pytest.mark.parametrize("shape", SHAPES)
def test_ids_are_equal_before_and_after(shape: str, tmp_path: Path) -> None:
    source = directory_of(tmp_path / "source", tokenizer_json(shape))
    assert main(["import", str(source), str(tmp_path / "model")]) == 0
    assert (tmp_path / "model/tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    model = electra_jax.load(tmp_path / "model")
    assert isinstance(model.vocabulary, TokenizerFile)
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", "transformers"]) == 0
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    before, after = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (source, tmp_path / "out"))
    for text in NASTY:
        assert before.encode(text).ids == after.encode(text).ids
    texts = [text for text in NASTY if 0 < len(before.encode(text).ids) <= 32 and text.strip()]
    assert len(texts) > 4
    for text, record in zip(texts, model(texts), strict=True):
        assert record["input_ids"] == after.encode(text).ids
    special = json.loads((tmp_path / "out/special_tokens_map.json").read_text())
    assert special == {f"{role}_token": token for role, token in model.vocabulary.special._asdict().items()}
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["pad_token_id"] == model.vocabulary.pad_id
    # And back again: the names of the roles and all else.
    assert main(["import", str(tmp_path / "out"), str(tmp_path / "again")]) == 0
    assert electra_jax.load(tmp_path / "again").vocabulary == model.vocabulary


@pytest.mark.parametrize("shape", SHAPES)
def test_an_exported_model_of_pairs_gives_the_second_text_its_type(shape: str, tmp_path: Path) -> None:
    """RoBERTa's post-processor knows no types, and our models read them."""
    vocabulary = tokenizer_of(tokenizer_json(shape), [])
    notes = hf.write(model_with(vocabulary, head=True), tmp_path)
    after = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for row, pair in zip(text_features(PAIRS, vocabulary=vocabulary, length=99), PAIRS, strict=True):
        encoding = after.encode(*pair)
        assert (encoding.ids, encoding.type_ids) == (row.input_ids, row.token_type_ids)
    before = Tokenizer.from_str(tokenizer_json(shape))
    for text in NASTY:
        assert before.encode(text).ids == after.encode(text).ids
        # Offsets are trimmed as they were.
        assert before.encode(text).offsets == after.encode(text).offsets
    if shape in ("roberta", "xlm_roberta"):
        assert any("post_processor" in note for note in notes)
    else:
        assert (tmp_path / "tokenizer.json").read_text() == tokenizer_json(shape)
    again = tokenizer_of((tmp_path / "tokenizer.json").read_text(), [])
    assert again.special == vocabulary.special
    # Caches and runs of the one are those of the other.
    assert again.fingerprint == vocabulary.fingerprint


def test_a_tokenizer_without_a_post_processor_gets_one(tmp_path: Path) -> None:
    values = json.loads(tokenizer_json("albert")) | {"post_processor": None}
    vocabulary = tokenizer_of(json.dumps(values), [])
    hf.write(model_with(vocabulary), tmp_path)
    after = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert after.encode("the cat").tokens[0] == "[CLS]"
    (row,) = text_features(PAIRS[:1], vocabulary=vocabulary, length=99)
    assert after.encode(*PAIRS[0]).ids == row.input_ids
    assert tokenizer_of((tmp_path / "tokenizer.json").read_text(), []).fingerprint == vocabulary.fingerprint


def test_a_tokenizer_that_reads_no_text_comes_and_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A language model's, without a mask and without marks around a text: the weights and token ids can be used."""
    values = json.loads(tokenizer_json("deberta_v3")) | {"post_processor": None}
    definition = json.dumps(values)
    for token in ("[CLS]", "[SEP]", "[MASK]"):
        definition = definition.replace(token, f"other{token[1:-1]}")
    source = directory_of(tmp_path / "source", definition)
    assert main(["import", str(source), str(tmp_path / "model")]) == 0
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", "transformers"]) == 0
    assert (tmp_path / "out/tokenizer.json").read_text() == definition
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "model"), "the cat"]) == 2
    assert "has no classification token (cls_token) and no separator (sep_token) and no mask" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "model"), "[5, 6, 7]"]) == 0


def test_roles_come_from_the_files_of_the_directory(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(tokenizer_json("xlm_roberta"))
    tokenizer.add_special_tokens(["<blank>"])
    source = directory_of(tmp_path / "source", tokenizer.to_str(), tokenizer_config={"mask_token": "<blank>"})
    assert main(["import", str(source), str(tmp_path / "model")]) == 0
    assert electra_jax.load(tmp_path / "model").vocabulary.special.mask == "<blank>"


def test_the_casing_that_tokenizer_config_states_goes_before_bert_s(tmp_path: Path) -> None:
    """As transformers reads it."""
    source = directory_of(tmp_path / "source", tokenizer_json("bert"), tokenizer_config={"do_lower_case": False})
    assert main(["import", str(source), str(tmp_path / "model")]) == 0
    vocabulary = electra_jax.load(tmp_path / "model").vocabulary
    assert not vocabulary.lowercase
    assert vocabulary.encode("The") != tokenizer_of(tokenizer_json("bert"), []).encode("The")


def test_our_own_export_is_read_as_the_vocab_txt_that_it_came_from(tmp_path: Path) -> None:
    vocabulary = Vocabulary([*SPECIAL_TOKENS, *"abcdef"], lowercase=True, strip_accents=False)
    hf.write(model_with(vocabulary), tmp_path / "out")
    assert main(["import", str(tmp_path / "out"), str(tmp_path / "model")]) == 0
    assert electra_jax.load(tmp_path / "model").vocabulary == vocabulary
    config = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    # transformers 5 builds an ElectraTokenizer anew from its entries: other ids for ΣΑΣ and for long words.
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "token_type_ids" in config["model_input_names"]


def test_a_vocab_txt_with_special_tokens_of_other_names(tmp_path: Path) -> None:
    tokens = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", "a", "b", "##b", "我", "<", ">", "s"]
    hf.write(model_with(Vocabulary(tokens, lowercase=True, strip_accents=True)), tmp_path / "named")
    (tmp_path / "named/vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    names = {"unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    (tmp_path / "named/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ElectraTokenizer", **names}))
    assert main(["import", str(tmp_path / "named"), str(tmp_path / "model")]) == 0
    vocabulary = electra_jax.load(tmp_path / "model").vocabulary
    assert vocabulary.special == ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
    assert [tokens[index] for index in vocabulary.encode("AB 我z <s>")] == ["a", "##b", "我", "<unk>", "<", "s", ">"]
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", "transformers"]) == 0
    after = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    assert after.encode("ab").tokens == ["<s>", "a", "##b", "</s>"]


@pytest.mark.parametrize("listed", ["added_tokens", "tokenizer_config"])
def test_tokens_that_were_added_to_a_vocab_txt_are_kept_whole(listed: str, tmp_path: Path) -> None:
    """One stands among the entries, and one beyond them, which only transformers' own files know."""
    tokens = [*SPECIAL_TOKENS, "[URL]", *"abe1<>[]url", "##b", "<e1>"]
    hf.write(model_with(Vocabulary(tokens, lowercase=True, strip_accents=True)), tmp_path / "source")
    for file in ("tokenizer.json", "vocab.txt"):
        (tmp_path / "source" / file).unlink()
    (tmp_path / "source/vocab.txt").write_text("".join(f"{token}\n" for token in tokens[:-1]))
    number = len(tokens) - 1
    if listed == "added_tokens":
        files = {
            "added_tokens": {"<e1>": number},
            "special_tokens_map": {"additional_special_tokens": [{"content": "[URL]"}]},
            "tokenizer_config": {"tokenizer_class": "BertTokenizer"},
        }
    else:
        flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
        added = {"0": "[PAD]", "5": "[URL]", str(number): "<e1>"}
        decoder = {index: {"content": token, **flags} for index, token in added.items()}
        files = {"tokenizer_config": {"tokenizer_class": "BertTokenizer", "added_tokens_decoder": decoder}}
    for name, values in files.items():
        (tmp_path / "source" / f"{name}.json").write_text(json.dumps(values))
    assert main(["import", str(tmp_path / "source"), str(tmp_path / "model")]) == 0
    vocabulary = electra_jax.load(tmp_path / "model").vocabulary
    assert vocabulary.tokens == tokens
    text = "ab <e1> AB<e1>[URL]a [MASK]"
    read = [tokens[index] for index in vocabulary.encode(text)]
    assert read == ["a", "##b", "<e1>", "a", "##b", "<e1>", "[URL]", "a", "[", "[UNK]", "]"]
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", "transformers"]) == 0
    after = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    assert after.encode(text.removesuffix(" [MASK]")).tokens == ["[CLS]", *read[:-3], "[SEP]"]


def test_a_vocabulary_that_is_not_whole_gives_no_tokenizer(tmp_path: Path) -> None:
    """AutoTokenizer would add what is missing, with an id that the model has no row for."""
    tokens = [token for token in SPECIAL_TOKENS if token != "[CLS]"]
    notes = hf.write(model_with(Vocabulary([*tokens, "a"], lowercase=True, strip_accents=True)), tmp_path)
    assert any("lacks [CLS], which AutoTokenizer would add" in note for note in notes)
    assert not [path.name for path in tmp_path.iterdir() if "token" in path.name or "vocab" in path.name]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}, "word_tokenizer_type 'mecab'"),
        ({"tokenizer_class": "BertTokenizer", "tokenize_chinese_chars": False}, "tokenize_chinese_chars False"),
        ({"tokenizer_class": "AlbertTokenizer"}, "AlbertTokenizer"),
        ({"never_split": ["[URL]"]}, "never_split"),
    ],
)
def test_a_tokenizer_that_is_not_berts_is_named_and_not_replaced(
    config: dict[str, Any], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = directory_of(tmp_path / "source", tokenizer_json("bert"), tokenizer_config=config)
    ids = Tokenizer.from_file(str(source / "tokenizer.json")).get_vocab()
    (source / "tokenizer.json").unlink()
    (source / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(ids, key=ids.__getitem__)))
    assert main(["import", str(source), str(tmp_path / "model")]) == 0
    said = capsys.readouterr().err
    assert named in said
    assert "save a tokenizer.json there" in said
    assert electra_jax.load(tmp_path / "model").vocabulary is None
    # Old directories name the class elsewhere.
    sizes = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(sizes | {"tokenizer_class": "BertJapaneseTokenizer"}))
    (source / "tokenizer_config.json").unlink()
    assert main(["import", str(source), str(tmp_path / "other")]) == 0
    assert "BertJapaneseTokenizer, is not read" in capsys.readouterr().err


def test_a_tokenizer_of_another_size_than_the_table_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = directory_of(tmp_path / "source", tokenizer_json("albert"))
    size = tokenizer_of(tokenizer_json("albert"), []).vocab_size
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.add_tokens(["another"])
    tokenizer.save(str(source / "tokenizer.json"))
    assert main(["import", str(source), str(tmp_path / "model")]) == 2
    said = capsys.readouterr().err
    assert f"{size + 1} entries" in said
    assert f"{size} rows" in said


def test_a_broken_tokenizer_json_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = directory_of(tmp_path / "source", tokenizer_json("albert"))
    (source / "tokenizer.json").write_text('{"model": {"type": "Strange"}}')
    assert main(["import", str(source), str(tmp_path / "model")]) == 2
    assert "the tokenizer of" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["tf1", "t5x"])
def test_other_formats_carry_the_file(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = directory_of(tmp_path / "source", tokenizer_json("deberta_v3"))
    assert main(["import", str(source), str(tmp_path / "model")]) == 0
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", form]) == 0
    assert (tmp_path / "out/tokenizer.json").read_text() == tokenizer_json("deberta_v3")
    assert ("reads a vocab.txt alone" in capsys.readouterr().err) == (form == "tf1")
