"""What a record of multiple choice may be: lists and columns of choices, labels by number, letter and text."""

from typing import Any

import pytest

from electra_jax.tasks.multiple_choice.examples import (
    BadRecordError,
    ChoiceColumns,
    ChoiceExample,
    choices_of,
    example_of,
    place_of,
)

COLUMNS = ChoiceColumns("text", "question", ("a", "b", "c"), "label")
CHOICES = ("red", "blue", "2")


@pytest.mark.parametrize(
    ("label", "place"),
    [(0, 0), ("1", 1), (1.0, 1), ("1.0", 1), ("A", 0), ("b", 1), ("C", 2), (" blue ", 1), ("red", 0), (2, 2)],
)
def test_a_label_is_a_number_a_letter_or_a_text(label: Any, place: int) -> None:
    """The last number is also the text of the same choice, which is no contradiction."""
    assert place_of(label, CHOICES) == place


@pytest.mark.parametrize(
    ("label", "choices", "problem", "expected"),
    [
        ("3", CHOICES, "the label '3'", "the number of a choice (0 to 2), its letter (A to C) or its text"),
        ("D", CHOICES, "the label 'D'", "its letter (A to C)"),
        ("Red", CHOICES, "the label 'Red'", "or its text"),
        (-1, CHOICES, "the label '-1'", "the number of a choice (0 to 2)"),
        # The third by its number, and the first by its text.
        ("2", ("2", "3", "4"), "the label '2', by which 2 choices can be meant", "a letter that is no choice, A to C"),
        ("red", ("red", "red"), "the label 'red', by which 2 choices can be meant", "a letter"),
    ],
)
def test_a_label_that_means_no_choice_or_two(label: Any, choices: Any, problem: str, expected: str) -> None:
    with pytest.raises(BadRecordError) as refused:
        place_of(label, choices)
    assert refused.value.args[0] == problem
    assert expected in refused.value.args[1]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (["red", "blue"], ("red", "blue")),
        ('["red", "blue"]', ("red", "blue")),
        ("['red', 'it\\'s']", ("red", "it's")),
        ([1, 2.5], ("1", "2.5")),
        # The same text twice keeps the places of those after it.
        (["no", "no", "yes"], ("no", "no", "yes")),
    ],
)
def test_a_list_of_choices(value: Any, found: tuple[str, ...]) -> None:
    assert choices_of({"choices": value}, "choices") == found


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("red, blue", "'choices' is 'red, blue'"),
        (None, "'choices' is None"),
        ([["red"], ["blue"]], "'choices' is"),
        # Not what numpy prints, which Python reads as one text.
        ("['red' 'blue']", "1 choice"),
        (["red", ""], "an empty choice, number 1 of 2 choices"),
        ([], "0 choices"),
    ],
)
def test_what_is_no_list_of_choices(value: Any, problem: str) -> None:
    with pytest.raises(BadRecordError) as refused:
        choices_of({"choices": value}, "choices")
    assert refused.value.args[0].startswith(problem)


def test_the_last_columns_may_be_empty() -> None:
    record: dict[str, Any] = {"text": "T", "question": "Q", "a": "red", "b": "blue", "c": "", "label": "B"}
    assert example_of(7, record, COLUMNS) == ChoiceExample(7, "T", "Q", ("red", "blue"), 1)
    assert choices_of(record | {"c": None}, COLUMNS.choices) == ("red", "blue")
    # A gap would move the choices after it.
    with pytest.raises(BadRecordError, match="an empty choice, number 1 of 3 choices"):
        example_of(0, record | {"b": " ", "c": "green"}, COLUMNS)
    with pytest.raises(BadRecordError, match="1 choice"):
        example_of(0, record | {"b": ""}, COLUMNS)


def test_missing_fields_are_named() -> None:
    record = {"text": None, "question": "Q", "a": "red", "b": "blue", "c": "", "label": "nan"}
    with pytest.raises(BadRecordError) as refused:
        example_of(0, record, COLUMNS)
    assert refused.value.args == ("no 'text', 'label'", "the columns text, question, a, b, c, label")
