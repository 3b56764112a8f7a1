"""Read the TFRecords of the original TensorFlow builder (`build_pretraining_dataset.py`) as a corpus."""

from collections.abc import Iterable, Iterator

from etils import epath
from google.protobuf.message import DecodeError

from electra_jax.errors import UserError
from electra_jax.files import size_and_time
from electra_jax.tasks.corpora.corpus import Corpus, fingerprint_of
from electra_jax.tasks.host_tensorflow import reason_of, tf

_FEATURES = ("input_ids", "input_mask", "segment_ids")


class OriginalTFRecords(Corpus):
    """Read files of padded examples (input_ids, input_mask, segment_ids of one length); a unit is a file."""

    tokenised = True

    def __init__(self, paths: Iterable[epath.Path], *, root: epath.Path, name: str) -> None:
        """Take the files; nothing is read yet.

        Args:
            paths: the files.
            root: a folder that holds all of them.
            name: a short readable name.
        """
        self._paths = {path.relative_to(root).as_posix(): path for path in paths}
        super().__init__(name=name, units=self._paths)

    @property
    def size_bytes(self) -> int:
        """Return the bytes of the files."""
        return sum(size_and_time(path)[0] for path in self._paths.values())

    def fingerprint(self) -> str:
        """Return a hash of the units' names, sizes and modification times."""
        files = [(unit, *size_and_time(path)) for unit, path in self._paths.items()]
        return fingerprint_of("tfrecords", files)

    def examples(self, unit: str) -> Iterator[dict[str, list[int]]]:
        """Yield the examples of a file without padding: input_ids and token_type_ids, [CLS] and [SEP] included."""
        path = self._paths[unit]
        for number, record in enumerate(_records(path)):
            try:
                features = tf.train.Example.FromString(record).features.feature
            except DecodeError as error:
                raise UserError(f"{path}, record {number}: not a tf.train.Example ({error}).") from error
            yield _unpadded({key: list(features[key].int64_list.value) for key in features}, path, number)


def _records(path: epath.Path) -> Iterator[bytes]:
    number = 0
    try:
        for record in tf.data.TFRecordDataset(str(path), buffer_size=1 << 18).as_numpy_iterator():
            yield record
            number += 1
    except tf.errors.DataLossError as error:
        raise UserError(
            f"{path}, record {number}: truncated or corrupt ({reason_of(error)}); fetch or make the file again."
        ) from error
    except tf.errors.OpError as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}).") from error


def _unpadded(features: dict[str, list[int]], path: epath.Path, number: int) -> dict[str, list[int]]:
    missing = [key for key in _FEATURES if not features.get(key)]
    if missing:
        raise UserError(
            f"{path}, record {number}: lacks {', '.join(missing)} (holds {', '.join(sorted(features)) or 'none'}), "
            f"so the original builder did not write it; read a SeqIO cache through MIXTURE_OR_TASK_NAME."
        )
    lengths = {key: len(features[key]) for key in _FEATURES}
    if len(set(lengths.values())) > 1:
        raise UserError(f"{path}, record {number}: features of different lengths ({lengths}).")
    length = sum(features["input_mask"])
    return {
        "input_ids": features["input_ids"][:length],
        "token_type_ids": features["segment_ids"][:length],
    }
