"""Give a `Vocabulary` the interface that SeqIO expects of the vocabularies of its features."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import seqio

from electra_jax.tasks.host_tensorflow import tf
from electra_jax.tasks.vocabulary import Vocabulary


class SeqioVocabulary(seqio.Vocabulary):
    """Wrap a vocabulary, without added tokens."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Take the entries and the casing of `vocabulary`."""
        super().__init__()
        self._vocabulary = vocabulary

    def __eq__(self, other: object) -> bool:
        """Return whether both have the same entries and casing, as SeqIO requires within a mixture."""
        return isinstance(other, SeqioVocabulary) and self._vocabulary == other._vocabulary

    def __hash__(self) -> int:
        """Return a hash that equal vocabularies share."""
        return hash(self._vocabulary)

    @property
    def pad_id(self) -> int:
        """Return the id of [PAD]."""
        return self._vocabulary.pad_id

    @property
    def unk_id(self) -> int:
        """Return the id of [UNK]."""
        return self._vocabulary.unk_id

    @property
    def bos_id(self) -> int:
        """Return the id of [CLS]."""
        return self._vocabulary.cls_id

    @property
    def eos_id(self) -> None:
        """Return None: [SEP] also occurs between segments, and SeqIO's decode would cut the text at the first one."""
        return

    @property
    def _base_vocab_size(self) -> int:
        return self._vocabulary.vocab_size

    def _encode(self, s: str) -> list[int]:
        return self._vocabulary.encode(s)

    def _decode(self, ids: Iterable[int]) -> str:
        return self._vocabulary.tokenizer.decode(list(ids), skip_special_tokens=False)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        def encode(text: Any) -> np.ndarray:
            # The value is bytes in a graph, and an array without dimensions outside of one.
            return np.asarray(self._encode(np.asarray(text).item().decode("utf-8")), np.int32)

        ids = tf.numpy_function(encode, [s], tf.int32)
        ids.set_shape([None])
        return ids

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        def decode(ids: np.ndarray) -> bytes:
            return self._decode(ids.tolist()).encode("utf-8")

        text = tf.numpy_function(decode, [ids], tf.string)
        text.set_shape([])
        return text
