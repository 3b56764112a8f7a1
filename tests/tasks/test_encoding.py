"""A text of any length is tokenised in parts, with the ids and the places that it has whole."""

import pytest
from tokenizers import Encoding, Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from electra_jax.errors import UserError
from electra_jax.tasks import encoding
from electra_jax.tasks.qa.answers import tokenize_context
from electra_jax.tasks.vocabulary import Vocabulary
from support.finetuned_model import TOKENS
from support.tokenizers import TEXTS, tokenizer_json


@pytest.mark.parametrize("shape", ["bert", "modernbert", "roberta", "xlm_roberta", "deberta_v3"])
def test_a_long_text_has_the_ids_that_it_would_have_whole(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a short line", " ".join(TEXTS), "", *TEXTS[:3], "x" * 90]
    tokenizer = Tokenizer.from_str(tokenizer_json(shape))
    whole = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    given: list[int] = []

    class Counting:
        def encode_batch_fast(self, parts: list[str], **options: bool) -> list[Encoding]:
            given.append(sum(map(len, parts)))
            return tokenizer.encode_batch_fast(parts, **options)

    monkeypatch.setattr(encoding, "LONGEST_PART", 90)
    monkeypatch.setattr(encoding, "LARGEST_BATCH", 200)
    assert encoding.encode_texts(texts, Counting()) == whole
    assert len(given) > 5
    assert max(given) < 200 + 90
    assert encoding.encode_texts([], tokenizer) == []


def test_a_long_context_has_the_offsets_that_it_would_have_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = Vocabulary(TOKENS, lowercase=True, strip_accents=True)
    text = " ".join(TOKENS[5:] * 9)
    tokenize_context.cache_clear()
    whole = tokenize_context(vocabulary, text)
    tokenize_context.cache_clear()
    monkeypatch.setattr(encoding, "LONGEST_PART", 30)
    found = tokenize_context(vocabulary, text)
    tokenize_context.cache_clear()
    assert len(whole.ids_T) > 40
    assert found.ids_T.tolist() == whole.ids_T.tolist()
    assert found.offsets_T2.tolist() == whole.offsets_T2.tolist()


def test_what_a_tokenizer_cannot_read_is_said() -> None:
    """One without an unknown token raises an `Exception`, and an endless pattern a panic, which is none."""
    closed = Tokenizer(WordLevel({"cat": 0}, unk_token="[UNK]"))
    endless = Tokenizer(WordLevel({"cat": 0, "[UNK]": 1}, unk_token="[UNK]"))
    endless.pre_tokenizer = Split(Regex("(a+)+$"), "isolated")
    for tokenizer, text, reason in ((closed, "dog", r"Missing \[UNK\]"), (endless, "a" * 40 + "!", "retry-limit")):
        for read in (encoding.encode_texts, encoding.encode_with_marks):
            with pytest.raises(UserError, match=rf"the tokenizer cannot read a text \(.*{reason}.*\): correct its"):
                read(["", text], tokenizer)
