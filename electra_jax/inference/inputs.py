"""What a user gives a model to read, in the one form that each family of tasks takes."""

from collections.abc import Mapping, Sequence
from typing import Any

from electra_jax.errors import UserError

# Names of the second text of a pair.
SECOND = ("text_pair", "text_b")


def as_list(inputs: Any) -> list[Any]:
    """The inputs of one call: a list holds many, and a text, a tuple (a pair) or a mapping is one.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(inputs, (str, tuple, Mapping)):
        return [inputs]
    if isinstance(inputs, Sequence):
        return list(inputs)
    raise UserError(f"the input is of type {type(inputs).__name__}: give a text, a tuple, a dict, or a list of them")


def canonical(value: Any, kind: str, pair: bool | None, where: str) -> Any:
    """One input in the form that a family of tasks takes.

    Args:
        value: what the user gave.
        kind: of `downstream.KINDS`; any other kind of model reads texts and pairs.
        pair: whether it must be two texts, or must not; None where it may.
        where: for messages, such as "input 3".

    Returns:
        Question answering: {"question", "context"} and the user's "id", if any. Tagging: a list of words. Else a text,
        or a tuple of two.

    Raises:
        UserError: it is of another form; says which one is expected.
    """
    if kind == "question_answering":
        return question(value, where)
    if kind == "tagging":
        return words(value, where)
    found = texts(value, where)
    if pair is not None and pair != isinstance(found, tuple):
        expected = 'two texts, as in {"text": ..., "text_pair": ...}' if pair else "one text"
        raise UserError(f"{where} is {shown(value)}: this model reads {expected}")
    return found


def question(value: Any, where: str) -> dict[str, str]:
    """A question and its context."""
    missing = [name for name in ("question", "context") if not (isinstance(value, Mapping) and name in value)]
    if missing:
        raise UserError(
            f'{where} has no {" and no ".join(missing)}: this model answers {{"question": ..., "context": ...}}'
        )
    found = {name: value[name] for name in ("id", "question", "context") if name in value}
    for name, text in found.items():
        if not isinstance(text, str):
            raise UserError(f"{where}: {name} is {shown(text)}, and must be a text")
    return found


def words(value: Any, where: str) -> list[str]:
    """The words of a sentence; a text is split at white space."""
    if isinstance(value, Mapping):
        value = value.get("words", value.get("text"))
    if isinstance(value, str):
        return value.split()
    if isinstance(value, Sequence) and all(isinstance(word, str) and word.strip() for word in value):
        return list(value)
    raise UserError(f'{where} is {shown(value)}: this model tags a text, a list of words, or {{"words": [...]}}')


def texts(value: Any, where: str) -> str | tuple[str, str]:
    """A text, or a pair."""
    if isinstance(value, Mapping):
        if "text" not in value:
            raise UserError(f'{where} is an object with neither input_ids nor text: give {{"text": ...}}')
        parts = [value[name] for name in ("text", *SECOND) if value.get(name) is not None]
    else:
        parts = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else []
    if len(parts) not in (1, 2) or not all(isinstance(part, str) for part in parts):
        raise UserError(f"{where} is {shown(value)}: this model reads a text, or a pair of texts")
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
