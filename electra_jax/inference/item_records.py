"""Answer inputs that keep their place: each gets a record, and one that the model refuses affects no other."""

import logging
from collections.abc import Callable, Iterable, Sequence

from electra_jax.errors import UserError
from electra_jax.inference.items import Item
from electra_jax.inference.network import Network
from electra_jax.inference.output_files import Output
from electra_jax.inference.prediction import Record, answers, predict_ids
from electra_jax.tasks.long_texts import CutCount

logger = logging.getLogger(__name__)

# Returns a record for each input, or raises UserError if one of them is refused.
Answer = Callable[[Sequence[Item]], list[Record]]


def write_records(lists: Iterable[Sequence[Item]], answer: Answer, output: Output) -> None:
    """Write the record of each input, in order, except those already written; see `named_records`.

    Raises:
        UserError: if there were inputs, and none could be answered.
    """
    number, errors = 0, list(output.errors)
    for items in lists:
        if output.done < number + len(items):
            # A partly written list is answered whole, so that its batches, and hence the last digits, are the same.
            for record in named_records(items, answer)[max(0, output.done - number) :]:
                output.write(record)
                errors += [record["error"]] if "error" in record else []
        number += len(items)
    if errors and len(errors) == number:
        raise UserError(errors[0] if number == 1 else f"none of the {number:,} inputs could be answered; {errors[0]}")
    if errors:
        logger.warning("%d of %d inputs could not be answered: their records have an `error`", len(errors), number)


def named_records(items: Sequence[Item], answer: Answer) -> list[Record]:
    """Return a record for each input: its `index`, its `id` if it has one, and the answer or an `error`."""
    records = records_of(items, answer)
    return [
        {"index": item.index} | ({} if item.identifier is None else {"id": item.identifier}) | record
        for item, record in zip(items, records, strict=True)
    ]


def records_of(items: Sequence[Item], answer: Answer) -> list[Record]:
    """Return a record for each input, with only an `error` if it cannot be answered."""
    found = iter(answered([item for item in items if item.error is None], answer))
    return [next(found) if item.error is None else {"error": item.error} for item in items]


def answered(items: Sequence[Item], answer: Answer) -> list[Record]:
    """Return a record for each input that could be read; its `error` if the model refuses it."""
    try:
        return answer(items)
    except UserError as error:
        if len(items) == 1:
            return [{"error": str(error)}]
    # The halves are answered separately until a refused input is alone.
    middle = len(items) // 2
    return answered(items[:middle], answer) + answered(items[middle:], answer)


def answered_together(model: Network, items: Sequence[Item], *, batch_size: int, cut: CutCount) -> list[Record]:
    """Return a record for each input, and add to `cut` what was cut off from texts; see `answers`.

    Raises:
        UserError: if the model refuses one of them.
    """
    ids = [item.ids for item in items if item.ids is not None]
    parts = [ids[start : start + batch_size] for start in range(0, len(ids), batch_size)]
    of_ids = iter([record for part in parts for record in predict_ids(model, part, batch_size=batch_size)])
    values = [item.value for item in items if item.ids is None]
    of_text = iter(answers(model, values, batch_size=batch_size, count=cut))
    return [next(of_text if item.ids is None else of_ids) for item in items]
