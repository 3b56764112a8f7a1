"""The pieces of work that a comparison is made of: which can be begun, and how long the rest takes."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class Piece:
    """One process: a pre-training up to a fraction of the budget, or the fine-tuning of a checkpoint on a task.

    Attributes:
        name: its directory below the comparison's; with .json its record and with .log what it said.
        variant: or `RANDOM`.
        fraction: of the budget; 0 for random weights.
        task: None for a pre-training.
        arguments: of `electra`, verb first.
        settings: what Gin resolved for it, as text, but for what cannot change its result.
        steps: updates that the weights have had in all.
        flops: of those.
        needs: the piece that must be done before.
    """

    name: str
    variant: str
    fraction: float
    task: str | None
    arguments: tuple[str, ...]
    settings: Mapping[str, str]
    steps: int
    flops: float
    needs: str | None


def ready(pieces: Sequence[Piece], *, done: Collection[str], begun: Collection[str]) -> list[Piece]:
    """The pieces that can be begun, in order: not yet begun or done, and what they need is done."""
    return [
        piece
        for piece in pieces
        if piece.name not in done and piece.name not in begun and (piece.needs is None or piece.needs in done)
    ]


class Timing(NamedTuple):
    """What one process took for its share of a piece, and the share that is left; shares are of the piece's own work.

    A process that goes on after a kill has only a part of the piece to do.
    """

    seconds: float
    share: float
    left: float


def seconds_left(
    pieces: Sequence[Piece], timings: Mapping[str, Timing], *, processes: int
) -> tuple[float, Sequence[str]]:
    """How long what is left takes, side by side, and the pieces of which that is not known.

    Of pre-training each FLOP takes as long as of the same variant, or of the others if it has not had any; a
    fine-tuning takes as long as others on its task, or on any task.

    Args:
        pieces: all of them.
        timings: of those that are done or under way.
        processes: side by side.
    """
    own = own_flops(pieces)
    timed = [piece for piece in pieces if piece.name in timings and timings[piece.name].share > 0]
    left, unknown = [0.0], []
    for piece in pieces:
        share = timings[piece.name].left if piece.name in timings else 1.0
        same_kind = [one for one in timed if (one.task is None) == (piece.task is None)]
        like = "variant" if piece.task is None else "task"
        alike = [one for one in same_kind if getattr(one, like) == getattr(piece, like)] or same_kind
        if alike:
            taken = sum(timings[one.name].seconds for one in alike)
            work = sum(timings[one.name].share * own[one.name] for one in alike)
            left.append(taken / work * own[piece.name] * share)
        elif share > 0:
            unknown.append(piece.name)
    return max(sum(left) / processes, *left), unknown


def own_flops(pieces: Sequence[Piece]) -> dict[str, float]:
    """The work of each piece itself: a pre-training goes on from the fraction before; a fine-tuning counts as 1."""
    by_name = {piece.name: piece for piece in pieces}
    return {
        piece.name: 1.0 if piece.task is not None else piece.flops - (by_name[piece.needs].flops if piece.needs else 0)
        for piece in pieces
    }
