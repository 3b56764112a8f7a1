"""Give one record for each input, in order, also where one of them cannot be read or answered."""

import logging
from collections.abc import Callable, Iterable, Sequence

from electra_jax.errors import UserError
from electra_jax.inference.input_files import Item
from electra_jax.inference.output_files import Write
from electra_jax.inference.prediction import Record

logger = logging.getLogger(__name__)

# Returns a record for each input, or raises UserError if one of them is refused.
Answer = Callable[[Sequence[Item]], list[Record]]


def write_records(lists: Iterable[Sequence[Item]], answer: Answer, write: Write) -> None:
    """Write a record for each input, in order: its `index`, its `id` if it has one, and the answer or an `error`.

    Raises:
        UserError: if there were inputs, and none could be answered.
    """
    number, errors = 0, []
    for items in lists:
        for item, record in zip(items, records_of(items, answer), strict=True):
            named = {} if item.identifier is None else {"id": item.identifier}
            write({"index": item.index} | named | record)
            errors += [record["error"]] if "error" in record else []
        number += len(items)
    if errors and len(errors) == number:
        raise UserError(errors[0] if number == 1 else f"none of the {number:,} inputs could be answered; {errors[0]}")
    if errors:
        logger.warning("%d of %d inputs could not be answered: their records have an `error`", len(errors), number)


def records_of(items: Sequence[Item], answer: Answer) -> list[Record]:
    """Return a record for each input, with nothing but an `error` where it cannot be answered."""
    found = iter(answered([item for item in items if item.error is None], answer))
    return [next(found) if item.error is None else {"error": item.error} for item in items]


def answered(items: Sequence[Item], answer: Answer) -> list[Record]:
    """Return a record for each input that could be read, and an `error` where an input is refused."""
    try:
        return answer(items)
    except UserError as error:
        if len(items) == 1:
            return [{"error": str(error)}]
    # The halves are answered apart until the input that is refused stands alone.
    middle = len(items) // 2
    return answered(items[:middle], answer) + answered(items[middle:], answer)
