"""Read a text dataset prepared by TensorFlow Datasets as a corpus."""

import re
from collections.abc import Iterator

import tensorflow_datasets as tfds

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.corpus import Corpus, Document, fingerprint_of, joined_lines
from electra_jax.tasks.tfds import prepared_builder, sentences_of

# NAME[/CONFIG][:VERSION][:SPLIT]; a version looks like 1.0.0, and a split may hold colons: train[:10%]
_ADDRESS = re.compile(r"(?P<name>[^:]+(:\d+\.(\d+|\*)\.(\d+|\*))?)(:(?P<split>.+))?")


class TfdsText(Corpus):
    """Read one split of a dataset, "train" by default. A unit is a shard of it, or a part that the split names."""

    def __init__(self, address: str, *, text_field: str, skip_undecodable: bool) -> None:
        """Look up the dataset under TFDS_DATA_DIR; nothing is read yet.

        Args:
            address: NAME[:split], as TFDS writes them.
            text_field: the field of an example that holds the text.
            skip_undecodable: whether texts that are not UTF-8 are left out and counted, instead of raising an error.

        Raises:
            UserError: if there is no such dataset, split or text field, or the dataset is not prepared.
        """
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise UserError(f"tfds:{address} is not of the form tfds:NAME[:split].")
        self._name, split = match["name"], match["split"] or "train"
        self._text_field = text_field
        self._skip_undecodable = skip_undecodable
        builder = prepared_builder(self._name, None)
        _check_text_field(builder, text_field)
        try:
            info = builder.info.splits[split]
        except (KeyError, ValueError) as error:
            raise UserError(
                f"tfds:{self._name} has no split {split!r} (it has: {', '.join(sorted(builder.info.splits))})."
            ) from error
        whole = split in builder.info.splits
        units = [f"{split}[{shard}shard]" for shard in range(info.num_shards)] if whole else [split]
        super().__init__(name=f"tfds:{self._name}:{split}", units=units)
        self._size = info.num_bytes if whole else int(builder.info.dataset_size)
        self._full_name = builder.info.full_name
        self._num_examples = info.num_examples

    @property
    def size_bytes(self) -> int:
        """Return the bytes of the prepared split."""
        return self._size

    def fingerprint(self) -> str:
        """Return a hash of the dataset's name, configuration and version, the split and how it is read."""
        return fingerprint_of(self._full_name, self.name, self._num_examples, self._text_field, self._skip_undecodable)

    def documents(self, unit: str) -> Iterator[Document]:
        """Yield the texts of a shard, in the order of its file.

        Raises:
            UserError: if a text is not UTF-8, or a file is not in TFDS's format.
        """
        read = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        only_text = tfds.decode.PartialDecoding([self._text_field])
        with sentences_of(f"{self.name}, {unit}"):
            dataset = prepared_builder(self._name, None).as_dataset(
                split=unit, shuffle_files=False, read_config=read, decoders=only_text
            )
            for number, example in enumerate(dataset.as_numpy_iterator()):
                text = self._decode(example[self._text_field], unit, number)
                if text:
                    yield Document(f"{self.name}/{unit}#{number}", text)

    def _decode(self, value: bytes, unit: str, number: int) -> str:
        try:
            return joined_lines(value.decode("utf-8").split("\n"))
        except UnicodeDecodeError as error:
            if not self._skip_undecodable:
                raise UserError(
                    f"{self.name}, {unit}, example {number}: not UTF-8 at byte {error.start} of the text; "
                    f"leave such texts out with --gin.SKIP_UNDECODABLE=True."
                ) from error
            self.skipped["undecodable texts"] += 1
            return ""


def _check_text_field(builder: tfds.core.DatasetBuilder, text_field: str) -> None:
    features = builder.info.features
    texts = [name for name, feature in features.items() if isinstance(feature, tfds.features.Text)]
    if text_field not in texts:
        raise UserError(
            f"the TFDS dataset {builder.info.full_name} has no text field {text_field!r} "
            f"(it has: {', '.join(texts) or 'none'}); name one with --gin.TEXT_FIELD."
        )
