"""A split in two halves that share no text, and examples that have gold answers."""

import numpy as np
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.parts import halves, has_gold, warn_of_few
from electra_jax.tasks.qa.questions import QAExample
from electra_jax.tasks.seqio_import import RegisteredExample
from electra_jax.tasks.tagging.sentences import TaggedSentence
from electra_jax.tasks.text.tables import TextExample


def question(number: int, context: str) -> QAExample:
    return QAExample(str(number), f"Who {number}?", context, (), ("him",), False)


def test_halves_are_exact_and_share_no_text() -> None:
    examples = [TextExample(number, f"text {number}", None, number % 2) for number in range(51)]
    first, second = halves(examples)
    assert (len(first), len(second)) == (25, 26)
    assert sorted([*first, *second]) == examples
    # The same ones in any order of the file.
    assert sorted(halves(examples[::-1])[0]) == sorted(first)
    # Pairs in the other order, questions about one context and equal sentences stay together.
    pairs = [TextExample(number, f"a{number // 2}", "b", 0) for number in range(20)]
    pairs = [pair._replace(text_a="b", text_b=pair.text_a) if pair.index % 2 else pair for pair in pairs]
    first, second = halves(pairs)
    assert {one.index // 2 for one in first}.isdisjoint(one.index // 2 for one in second)
    first, second = halves([question(number, f"context {number // 5}") for number in range(40)])
    assert (len(first), len(second)) == (20, 20)
    assert {one.context for one in first}.isdisjoint(one.context for one in second)
    sentences = [TaggedSentence((f"w{number // 3}", "x"), ("O", "O"), number) for number in range(30)]
    first, second = halves(sentences)
    assert len(first) == 15
    assert {one.words for one in first}.isdisjoint(one.words for one in second)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "only 1 example; each is 100 % of it"),
        (2, "only 2 examples; each is 50 % of it"),
        (99, "1 % of it"),
        (100, ""),
    ],
)
def test_few_examples_are_warned_of(number: int, said: str, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_few(number, "dev_report")
    if not said:
        assert caplog.messages == []
        return
    (message,) = caplog.messages
    assert message.startswith("the dev_report split has only")
    assert f"{said}, and a score of 100.00 may be luck" in message


def test_one_text_cannot_be_divided() -> None:
    with pytest.raises(UserError, match=r"the 3 dev examples have 1 different texts, too few .*SELECTION='\"last\"'"):
        halves([question(number, "one context") for number in range(3)])


def test_what_has_a_gold_answer() -> None:
    assert has_gold(TextExample(0, "a", None, 0))
    assert not has_gold(TextExample(0, "a", None, None))
    assert has_gold(TaggedSentence(("a",), ("O",), 0))
    assert not has_gold(TaggedSentence(("a",), (), 0))
    assert has_gold(question(0, "c"))
    assert not has_gold(QAExample("0", "Who?", "c", (), (), False))
    assert has_gold(QAExample("0", "Who?", "c", (), (), True))
    # Leaderboards' test splits in SeqIO's registry have the class -1; a value may be below 0.
    features = {"targets": np.array(-1)}
    assert not has_gold(RegisteredExample(features, label=-1))
    assert not has_gold(RegisteredExample({}))
    assert has_gold(RegisteredExample(features, label=-1.0))
    assert has_gold(RegisteredExample(features, words=("a",), tags=("1",)))
