"""Hold a tokenised split as memory-mapped arrays: any row in constant time, a batch in one gather."""

import dataclasses
import io
import json
import pathlib
import tokenize
import zlib
from types import TracebackType
from typing import Self

import numpy as np

from electra_jax.errors import UserError
from electra_jax.files import regular, replace_file, size_and_crc32
from electra_jax.json_files import read_json

# The checksums of the other files of a split.
SEAL = "integrity.json"
# Enough to tell texts apart, and quickly read from a cold disk.
CHECKED_EXAMPLES = 256
# Larger than any id: it is added to the id of a token that continues a word, if spaces of the text mark the words.
WORD_MARK = 2**24


@dataclasses.dataclass(frozen=True)
class TokenBlocks:
    """Hold N examples, end to end.

    Attributes:
        tokens: the ids of every example, uint16 or uint32, one after another.
        offsets: int64 [N + 1]; example n is `tokens[offsets[n]:offsets[n + 1]]`.
        second_starts: int64 [N]; place in example n where segment B starts, or the example's length if it has none.
        vocab_size: one more than the largest id.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    second_starts: np.ndarray
    vocab_size: int

    def __len__(self) -> int:
        """Return N."""
        return len(self.second_starts)

    def fits_together(self) -> bool:
        """Return whether the arrays belong to one split: they agree on the numbers of examples and of tokens."""
        if self.offsets.dtype != np.int64 or self.offsets.shape != (len(self.second_starts) + 1,):
            return False
        lengths_N = np.diff(self.offsets)
        whole = self.offsets[0] == 0 and self.tokens.shape == (self.offsets[-1],) and self.tokens.dtype.kind == "u"
        within = (lengths_N >= 0) & (self.second_starts >= 0) & (self.second_starts <= lengths_N)
        return bool(whole and within.all())

    def longest(self) -> int:
        """Return the number of tokens of the longest example; 0 if there is none."""
        return int(np.diff(self.offsets).max(initial=0))

    def checksum(self) -> int:
        """Return the CRC-32 of the numbers of examples and tokens and of some examples, evenly spaced."""
        number = min(len(self), CHECKED_EXAMPLES)
        rows_B = np.linspace(0, len(self) - 1, number).astype(np.int64)
        found = zlib.crc32(np.array([len(self), self.offsets[-1]], np.int64).tobytes())
        for row in rows_B:
            found = zlib.crc32(self.tokens[self.offsets[row] : self.offsets[row + 1]].astype(np.int64).tobytes(), found)
        return zlib.crc32(self.second_starts[rows_B].astype(np.int64).tobytes(), found)

    def gather(self, rows_B: np.ndarray, sequence_length: int) -> dict[str, np.ndarray]:
        """Return the examples `rows_B`, padded with 0: three int32 [B, L] arrays under BERT's names.

        An example longer than `sequence_length` loses its end.
        """
        starts_B = self.offsets[rows_B]
        lengths_B = self.offsets[rows_B + 1] - starts_B
        places_L = np.arange(sequence_length)
        real_BL = places_L < lengths_B[:, None]
        # Padding reads the row's first token, which exists, and is zeroed afterwards.
        ids_BL = self.tokens[starts_B[:, None] + places_L * real_BL].astype(np.int32)
        second_BL = (places_L >= self.second_starts[rows_B][:, None]) & real_BL
        return {
            "input_ids": ids_BL * real_BL,
            "token_type_ids": second_BL.astype(np.int32),
            "attention_mask": real_BL.astype(np.int32),
        }


def open_blocks(directory: str | pathlib.Path) -> TokenBlocks:
    """Map the arrays that `BlocksWriter` wrote in `directory`; the tokens stay on disk until they are read.

    All files are read once and compared with the seal, at about a second per gigabyte. Blocks of an earlier version
    have no seal. In any case the sizes are compared with each other, and the ids with `vocab_size`.

    Raises:
        UserError: if a file is missing, cut off or not what was written.
    """
    directory = pathlib.Path(directory)
    fault = _broken_seal(directory)
    if fault is None:
        try:
            offsets, second_starts, vocab_size = (
                np.load(regular(directory / f"{name}.npy")) for name in ("offsets", "second_starts", "vocab_size")
            )
            # An empty array cannot be mapped.
            tokens = np.load(regular(directory / "tokens.npy"), mmap_mode="r" if offsets[-1] else None)
            blocks = TokenBlocks(tokens, offsets, second_starts, int(vocab_size))
            if not blocks.fits_together():
                fault = "its files are of different lengths"
            elif int(tokens.max(initial=0)) >= max(blocks.vocab_size, 1):
                fault = f"it holds the token id {tokens.max()} of {blocks.vocab_size}"
            else:
                return blocks
        except (OSError, ValueError, TypeError, IndexError, EOFError, MemoryError, tokenize.TokenError) as error:
            fault = str(error)
    raise UserError(f"{directory} is damaged ({fault}): remove it, and rebuild the cache or copy it again")


def seal_blocks(directory: pathlib.Path) -> None:
    """Write the size and CRC-32 of every file in a split's folder to a file of its own in that folder."""
    sums = {path.name: size_and_crc32(path) for path in sorted(directory.iterdir()) if path.name != SEAL}
    replace_file(directory / SEAL, json.dumps(sums, indent=1) + "\n", durable=True)


def _broken_seal(directory: pathlib.Path) -> str | None:
    """Return in words how a split differs from its seal; None if it does not, or has no seal."""
    if not (directory / SEAL).exists():
        return None
    for name, sealed in read_json(directory / SEAL, dict[str, list[int]]).items():
        path = directory / name
        if not path.is_file():
            return f"{name} is missing"
        # The size reveals most damage without reading the file.
        if sealed[:1] != [path.stat().st_size] or sealed != size_and_crc32(path):
            return f"{name} is not what was written"
    return None


def save_array(path: pathlib.Path, array: np.ndarray) -> None:
    """Write an array to a file; unlike with `numpy.save`, an error says why the disk refused it."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    path.write_bytes(buffer.getbuffer())


def token_dtype(vocab_size: int) -> np.dtype:
    """Return the type in which ids below `vocab_size` are stored: 16 bits if they fit, else 32."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


class BlocksWriter:
    """Write blocks chunk by chunk, in a `with` statement; they are complete only after it."""

    def __init__(self, directory: str | pathlib.Path, *, vocab_size: int) -> None:
        """Prepare to write ids below `vocab_size` into `directory`, which must exist."""
        self._directory = pathlib.Path(directory)
        self._vocab_size = vocab_size
        self._dtype = token_dtype(vocab_size)
        self._num_tokens = self._largest = 0
        self._lengths = [np.zeros(1, np.int64)]
        self._second_starts = [np.zeros(0, np.int64)]

    def __enter__(self) -> Self:
        """Open the file of tokens."""
        self._file = open(self._directory / "tokens.npy", "wb")
        self._write_header()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write what is known only at the end."""
        with self._file:
            if error is None:
                self._write_header()
                save_array(self._directory / "offsets.npy", np.cumsum(np.concatenate(self._lengths)))
                save_array(self._directory / "second_starts.npy", np.concatenate(self._second_starts))
                save_array(self._directory / "vocab_size.npy", np.array(self._largest + 1, np.int64))

    def add(self, tokens: np.ndarray, lengths: np.ndarray, second_starts: np.ndarray) -> None:
        """Append examples, given by their tokens end to end, their lengths, and the starts of their segments B.

        Raises:
            UserError: if an id is outside the vocabulary.
        """
        self._largest = max(self._largest, int(tokens.max(initial=0)))
        if self._largest >= self._vocab_size:
            raise UserError(
                f"The cache holds the token id {self._largest}, but the vocabulary has {self._vocab_size} entries: "
                "name the vocabulary that it was made with, or rebuild the cache."
            )
        self._file.write(tokens.astype(self._dtype).tobytes())
        self._num_tokens += len(tokens)
        self._lengths.append(lengths)
        self._second_starts.append(second_starts)

    def _write_header(self) -> None:
        # NumPy leaves room in the header for the first dimension to grow, so the header can be written again.
        self._file.seek(0)
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._num_tokens,)}
        np.lib.format.write_array_header_1_0(self._file, header)
