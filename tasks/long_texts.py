"""Decide how texts longer than a row are handled, and count what is cut off."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from electra_jax.errors import UserError
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.protocol import Row
from electra_jax.tasks.qa.windows import max_context_spans, overlapping_spans

# "cut": one row, without the tokens that do not fit. "windows": rows that overlap by half.
LONG_TEXTS = ("cut", "windows")

# With fewer tokens, a pair's windows would have no room.
LEAST_WINDOW = 8


@dataclasses.dataclass
class CutCount:
    """Count the texts that have tokens in no row.

    Attributes:
        texts: number of texts that were cut.
        num_texts: number of all texts.
        tokens: number of tokens that were cut off.
        num_tokens: number of all tokens, without special tokens.
        length: the most tokens of a row, or of a question, whose context has windows.
        unit: "texts" or "questions".
    """

    length: int
    texts: int = 0
    num_texts: int = 0
    tokens: int = 0
    num_tokens: int = 0
    unit: str = "texts"

    def add(self, rows: Sequence[Row]) -> None:
        """Count the texts of rows, each once; rows without these counts are ignored."""
        told = [row for row in rows if "num_cut" in row]
        if told and "question_length" in told[0]:
            self.length, self.unit = int(told[0]["question_length"]), "questions"
        counted = {int(row["example"]): (int(row["num_tokens"]), int(row["num_cut"])) for row in told}
        self.num_texts += len(counted)
        self.num_tokens += sum(num_tokens for num_tokens, _ in counted.values())
        self.texts += sum(num_cut > 0 for _, num_cut in counted.values())
        self.tokens += sum(num_cut for _, num_cut in counted.values())

    def __str__(self) -> str:
        """Return a sentence on what was cut off, and what to do."""
        share = 100 * self.tokens / max(1, self.num_tokens)
        percent = f"{share:.0f}" if share >= 1 else f"{share:.1g}"
        of_texts = 'MAX_SEQ_LENGTH, or LONG_TEXTS = "windows" for classes, values and tags'
        return (
            f"{self.texts:,} of {self.num_texts:,} {self.unit}, {percent} % of tokens, cut at {self.length}: fine-tune "
            f"with a larger {'MAX_QUESTION_LENGTH' if self.unit == 'questions' else of_texts}"
        )

    def to_json(self) -> dict[str, int | str]:
        """Return the attributes by their names."""
        return dataclasses.asdict(self)


def cut_count(rows: Sequence[Row], length: int) -> CutCount:
    """Return the `CutCount` of some rows."""
    count = CutCount(length)
    count.add(rows)
    return count


def count_fields(num_tokens: int, num_cut: int) -> Row:
    """Return the fields of a row that `CutCount` reads: tokens of its whole text, and those that are in no row."""
    return {"num_tokens": np.array(num_tokens, np.int32), "num_cut": np.array(num_cut, np.int32)}


def check_long_texts(options: TaskOptions) -> None:
    """Check the setting for long texts.

    Raises:
        UserError: if it is not in `LONG_TEXTS`, windows are too short, or the rules are the original's, which cuts.
    """
    if options.long_texts not in LONG_TEXTS:
        raise UserError(f"LONG_TEXTS is {options.long_texts!r}: it must be one of {', '.join(map(repr, LONG_TEXTS))}")
    if options.long_texts == "windows" and options.row_length < LEAST_WINDOW:
        raise UserError(
            f"MAX_SEQ_LENGTH is {options.row_length}: windows over long texts need at least {LEAST_WINDOW} tokens"
        )
    if options.long_texts == "windows" and options.rules != "standard":
        raise UserError(f"LONG_TEXTS is 'windows', and the rules {options.rules!r} cut long texts: set it to 'cut'")


def token_windows(num_tokens: int, room: int) -> list[tuple[int, int]]:
    """Return the (start, length) of windows over tokens that overlap by half."""
    return overlapping_spans(num_tokens, room=room, doc_stride=max(1, room // 2))


def word_windows(sizes: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Return the (start, length), in words, of windows that overlap by about half and begin and end between words.

    Args:
        sizes: tokens of each word; a word with more than `room` is a window of its own.
        room: the most tokens of a window.
    """
    windows, start = [], 0
    while True:
        after, used = start, 0
        while after < len(sizes) and (after == start or used + sizes[after] <= room):
            used += sizes[after]
            after += 1
        windows.append((start, after - start))
        if after >= len(sizes):
            return windows
        start += max(1, (after - start) // 2)


def window_of_words(windows: list[tuple[int, int]], num_words: int) -> list[int]:
    """Return for each word the number of the window with the most context around it."""
    return max_context_spans(windows, num_words).tolist()
