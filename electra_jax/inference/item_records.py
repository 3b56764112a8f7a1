"""Answer inputs that keep their place: each gets a record, and one that the model refuses spoils no other."""

from collections.abc import Sequence

from electra_jax.errors import UserError
from electra_jax.inference.input_files import Item
from electra_jax.inference.network import Network
from electra_jax.inference.prediction import Record, answers, predict_ids
from electra_jax.tasks.long_texts import CutCount


def named_records(model: Network, items: Sequence[Item], batch_size: int, cut: CutCount) -> list[Record]:
    """Return a record for each input: its `index`, its `id` if it has one, and the answer or an `error`.

    What was cut off of texts is added to `cut`.
    """
    records = records_of(model, items, batch_size, cut)
    return [
        {"index": item.index} | ({} if item.identifier is None else {"id": item.identifier}) | record
        for item, record in zip(items, records, strict=True)
    ]


def records_of(model: Network, items: Sequence[Item], batch_size: int, cut: CutCount) -> list[Record]:
    """Return a record for each input, with nothing but an `error` where it cannot be answered; see `answers`."""
    found = iter(answered(model, [item for item in items if item.error is None], batch_size, cut))
    return [next(found) if item.error is None else {"error": item.error} for item in items]


def answered(model: Network, items: Sequence[Item], batch_size: int, cut: CutCount) -> list[Record]:
    """Return a record for each input that could be read, and an `error` where the model refuses an input."""
    try:
        return answered_together(model, items, batch_size, cut)
    except UserError as error:
        if len(items) == 1:
            return [{"error": str(error)}]
    # The halves are answered apart until the input that is refused stands alone.
    middle = len(items) // 2
    return answered(model, items[:middle], batch_size, cut) + answered(model, items[middle:], batch_size, cut)


def answered_together(model: Network, items: Sequence[Item], batch_size: int, cut: CutCount) -> list[Record]:
    """Return a record for each input.

    Raises:
        UserError: if the model refuses one of them.
    """
    ids = [item.ids for item in items if item.ids is not None]
    parts = [ids[start : start + batch_size] for start in range(0, len(ids), batch_size)]
    of_ids = iter([record for part in parts for record in predict_ids(model, part, batch_size=batch_size)])
    values = [item.value for item in items if item.ids is None]
    of_text = iter(answers(model, values, batch_size=batch_size, count=cut))
    return [next(of_text if item.ids is None else of_ids) for item in items]
