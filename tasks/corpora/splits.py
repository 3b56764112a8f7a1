"""Which documents are held out: decided by their text, so that copies of one always land on the same side."""

import hashlib
from collections.abc import Iterable

from electra_jax.errors import UserError

_HASHES = 2**64


def text_hash(text: str | bytes) -> int:
    """Return 64 bits that depend on the text alone."""
    data = text.encode("utf-8") if isinstance(text, str) else text
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def held_out_threshold(hashes: Iterable[int], held_out_fraction: float) -> int:
    """Return the number that the hash of a held-out document is below.

    It holds out `held_out_fraction` of the documents; where that would leave no document, it holds out the
    one with the smallest hash. Reads `hashes` only up to the first held-out document.

    Args:
      hashes: `text_hash` of every document of the corpus.
      held_out_fraction: 0 holds out nothing.

    Raises:
      UserError: a fraction outside [0, 1), or fewer than two different documents to divide.
    """
    if not 0 <= held_out_fraction < 1:
        raise UserError(f"HELD_OUT_FRACTION is {held_out_fraction}: it must be at least 0 and less than 1.")
    threshold = int(held_out_fraction * _HASHES)
    if threshold == 0:
        return 0
    seen = set()
    for value in hashes:
        if value < threshold:
            return threshold
        seen.add(value)
    if not seen:
        raise UserError("The corpus is empty: no document was found in it.")
    if len(seen) == 1:
        raise UserError(
            "The corpus has no two different documents, therefore none can be held out for evaluation: "
            "give more text, divide it (text_format), or set HELD_OUT_FRACTION to 0."
        )
    return min(seen) + 1
