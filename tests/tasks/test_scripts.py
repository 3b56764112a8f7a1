"""A text is looked at before a tokenizer is learned: its scripts, its spaces, and what a casing would destroy."""

import unicodedata

import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.scripts import Casing, choose_casing, script_of, survey

ENGLISH = ["The year's first café opened in Paris."]


def chosen(text: str, *, lowercase: bool | None = None, strip: bool | None = None, wordpiece: bool = True) -> Casing:
    return choose_casing(survey([text]), lowercase=lowercase, strip_accents=strip, wordpiece=wordpiece)


def test_scripts_by_hand() -> None:
    named = {
        "a": "Latin",
        "Ａ": "Latin",
        "é": "Latin",
        "я": "Cyrillic",
        "ガ": "Katakana",
        "ｶ": "Katakana",
        "ー": "Katakana",
    }
    named |= {"の": "Hiragana", "我": "Han", "한": "Hangul", "ั": "Thai", "ि": "Devanagari", "ع": "Arabic"}
    assert {character: script_of(character) for character in named} == named
    assert [script_of(character) for character in "1!\u0301 \ue000ª"] == [None] * 6


def test_shares_are_those_of_letters() -> None:
    found = survey(["ab 12", "яя!"])
    assert found.scripts == {"Latin": 0.5, "Cyrillic": 0.5}
    assert found.mean_run == 2
    assert str(found) == "letters: 50.0 % Latin, 50.0 % Cyrillic; spaces between words"
    assert str(survey(["12 !"])) == "letters: none; spaces between words"
    # An apostrophe ends no run, a full stop does: runs of 3 and 1, in which a letter stands in (9 + 1) / 4.
    assert survey(["it's.a"]).mean_run == 2.5


@pytest.mark.parametrize(
    ("text", "spaces"),
    [
        ("The cats sat on the mat.", True),
        ("Donaudampfschifffahrtsgesellschaft und Donau und der Rhein, und die Elbe auch", True),
        ("한국어 문장입니다 그리고 또 하나", True),
        ("हिन्दी में मात्राएँ होती हैं", True),
        ("我是一个学生。", False),
        ("ガラスの門を開ける。", False),
        # A segmenter's spaces; verses of four ideographs, and a number between spaces, are none.
        ("人人 生而 自由 ， 在 尊严 和 权利 上 一律 平等 。", True),
        ("ガラス の 門 を 開ける 。", True),
        ("天地玄黃\n宇宙洪荒\n日月盈昃\n辰宿列張", False),
        ("我们在 2020 年开始写这本关于语言的书。", False),
        ("ภาษาไทยไม่มีช่องว่างระหว่างคำ", False),
        ("GATTACA" * 9, False),
    ],
)
def test_spaces_between_words(text: str, spaces: bool) -> None:
    assert survey([text]).has_spaces == spaces
    assert survey([unicodedata.normalize("NFD", text)]).has_spaces == spaces


def test_casing_follows_the_script() -> None:
    assert chosen("The cat").lowercase
    assert chosen("Ελλάδα και Россия").lowercase
    assert not chosen("我是 a 学生们").lowercase
    assert not chosen("The cat", wordpiece=False).lowercase
    assert chosen("我是", lowercase=True).lowercase
    turkish = chosen("Kapıyı açtı ve dışarı çıktı")
    assert not turkish.lowercase
    assert turkish.notes == ["capitals are kept: of a text with ı and İ, I is not the capital of i"]
    assert chosen("Kapıyı", lowercase=True) == Casing(True, False, [])
    assert not chosen("The café").strip_accents


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ("ภาษาไทย น้ำ กิน", "is removed"),
        ("हिन्दी में", "is removed"),
        ("ガラス", "ガ becomes カ"),
        ("русский язык", "й becomes и"),
    ],
)
def test_stripping_letters_of_other_scripts_is_refused(text: str, example: str) -> None:
    with pytest.raises(UserError, match=f"STRIP_ACCENTS is True, and would change .*{example}"):
        chosen(text, strip=True)
    # A few among many Latin ones are warned of.
    (note,) = chosen("the cat sat on the mat " * 1000 + text, strip=True).notes
    assert example in note


def test_stripping_accents_of_latin_and_greek_and_korean_is_a_choice() -> None:
    for text in ("niño déjà vu", "Ελλάδα ἄνθρωπος", "한국어"):
        assert chosen(text, strip=True) == Casing(text != "한국어", True, [])
