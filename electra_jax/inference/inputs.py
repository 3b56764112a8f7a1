"""Convert user inputs to the form that each kind of task reads."""

from collections.abc import Mapping, Sequence
from typing import Any

from electra_jax.checkpoints.model_record import TASK_KINDS
from electra_jax.errors import UserError
from electra_jax.inference.network import Network
from electra_jax.tasks.multiple_choice.examples import BadRecordError, choices_of
from electra_jax.tasks.rows import without_surrogates

# The arguments of `Network.logits`.
FIELDS = ("input_ids", "attention_mask", "token_type_ids")

# Names of the second text of a pair.
SECOND = ("text_pair", "text_b")


def as_list(inputs: Any) -> list[Any]:
    """Return the inputs of one call: a list holds many, and a text, a tuple (a pair) or a mapping is one.

    Raises:
        UserError: if `inputs` is none of these.
    """
    if isinstance(inputs, (str, tuple, Mapping)):
        return [inputs]
    if isinstance(inputs, Sequence):
        return list(inputs)
    raise UserError(f"the input is of type {type(inputs).__name__}: give a text, a tuple, a dict, or a list of them")


def as_input(model: Network, value: Any, where: str) -> Any:
    """Convert a user's input to the form that the model reads: see `canonical`.

    Raises:
        UserError: if the value has another form, or the model reads no text. The message begins with `where`.
    """
    kind = model.description.kind
    pair = (model.description.task or {}).get("pair")
    found = canonical(value, TASK_KINDS.get(kind, kind), pair, where)
    if model.vocabulary is None:
        raise UserError(f"{where} is text, but the model has no vocabulary: give input_ids")
    return found


def canonical(value: Any, kind: str, pair: bool | None, where: str) -> Any:
    """Convert one input to the form that a kind of task takes.

    Args:
        value: the user's input.
        kind: a kind of `protocol.KINDS`; a model of any other kind reads texts and pairs.
        pair: whether the input must be two texts, or must not be; None if it may be.
        where: for messages, such as "input 3".

    Returns:
        Question answering: {"question", "context"} and the user's "id", if any. Multiple choice: {"text", "text_b",
        "choices"}, with `text_b` None if there is no question. Tagging: a text, or a list of words. Otherwise a text,
        or a tuple of two.

    Raises:
        UserError: if the value has another form.
    """
    if kind == "question_answering":
        return question(value, where)
    if kind == "multiple_choice":
        return choices(value, where)
    if kind == "tagging":
        return words(value, where)
    found = texts(value, where)
    if pair is not None and pair != isinstance(found, tuple):
        expected = 'two texts, as in {"text": ..., "text_pair": ...}' if pair else "one text"
        raise UserError(f"{where} is {shown(value)}: this model reads {expected}")
    return found


def question(value: Any, where: str) -> dict[str, str]:
    """Return a question and its context.

    Raises:
        UserError: if one of them is missing or is not a text.
    """
    missing = [name for name in ("question", "context") if not (isinstance(value, Mapping) and name in value)]
    if missing:
        raise UserError(
            f'{where} has no {" and no ".join(missing)}: this model answers {{"question": ..., "context": ...}}'
        )
    found = {name: value[name] for name in ("id", "question", "context") if name in value}
    for name, text in found.items():
        if not isinstance(text, str):
            raise UserError(f"{where}: {name} is {shown(text)}, and must be a text")
    return {name: without_surrogates(text) for name, text in found.items()}


def choices(value: Any, where: str) -> dict[str, Any]:
    """Return a text, optionally a question on it, and the choices.

    Raises:
        UserError: if one of them is missing or is not a text.
    """
    if not isinstance(value, Mapping) or "text" not in value or "choices" not in value:
        raise UserError(
            f'{where} is {shown(value)}: this model chooses, as in {{"text": ..., "choices": [..., ...]}}, with the '
            'question as "text_b" if there is one'
        )
    second = next((value[name] for name in SECOND if value.get(name) is not None), None)
    for text in (value["text"], *([] if second is None else [second])):
        if not isinstance(text, str):
            raise UserError(f"{where} is {shown(text)} in the place of a text")
    try:
        found = choices_of(value, "choices")
    except BadRecordError as error:
        problem, expected = error.args
        raise UserError(f"{where}: {problem}; expected {expected}") from error
    return {
        "text": without_surrogates(value["text"]),
        "text_b": None if second is None else without_surrogates(second),
        "choices": tuple(map(without_surrogates, found)),
    }


def words(value: Any, where: str) -> str | list[str]:
    """Return the words of a sentence, or the text that the task will split at white space.

    Raises:
        UserError: if the value is neither a text nor a list of words.
    """
    found = value
    if isinstance(value, Mapping):
        # Data sets on hubs call the words "tokens".
        found = next((value[name] for name in ("words", "tokens", "text") if name in value), None)
    if isinstance(found, str):
        return found
    if isinstance(found, Sequence) and all(isinstance(word, str) and word.strip() for word in found):
        return list(found)
    raise UserError(f'{where} is {shown(value)}: this model tags a text, a list of words, or {{"words": [...]}}')


def texts(value: Any, where: str) -> str | tuple[str, str]:
    """Return a text, or a pair of texts.

    Raises:
        UserError: if the value is neither.
    """
    if isinstance(value, Mapping):
        if "text" not in value:
            raise UserError(f'{where} is an object with neither input_ids nor text: give {{"text": ...}}')
        parts = [value[name] for name in ("text", *SECOND) if value.get(name) is not None]
    else:
        parts = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else []
    if len(parts) not in (1, 2) or not all(isinstance(part, str) for part in parts):
        raise UserError(f"{where} is {shown(value)}: this model reads a text, or a pair of texts")
    cleaned = tuple(map(without_surrogates, parts))
    return cleaned[0] if len(cleaned) == 1 else (cleaned[0], cleaned[1])


def shown(value: Any) -> str:
    """Return a value as a message shows it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
