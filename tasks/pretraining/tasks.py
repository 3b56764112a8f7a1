"""Register the SeqIO tasks of pre-training: documents -> examples -> (cache) -> masked examples."""

import functools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import seqio

from electra_jax.errors import UserError
from electra_jax.pretraining.corruption import max_predictions
from electra_jax.tasks.corpora.corpus import SPLITS, Corpus, example_id, held_out_threshold, read_corpus
from electra_jax.tasks.host_tensorflow import tf
from electra_jax.tasks.pretraining.masking import mask_tokens
from electra_jax.tasks.pretraining.packing import Packing, pack_document
from electra_jax.tasks.pretraining.tfrecords import FEATURES
from electra_jax.tasks.seqio_vocabulary import SeqioVocabulary
from electra_jax.tasks.vocabulary import Vocabulary

UNMASKED_SUFFIX = "_unmasked"

CACHED_FEATURES = {key: tf.TensorSpec(shape, dtype) for key, (shape, dtype) in FEATURES.items()}


class CorpusSource(seqio.DataSource):
    """Read the documents of the training or the validation split of a corpus, whose units are the shards.

    A text corpus yields {"key", "text"}, a tokenised one the cached features.
    """

    def __init__(self, corpus: Corpus, *, held_out_fraction: float) -> None:
        """Take the corpus; nothing is read before the first dataset is requested."""
        super().__init__(splits=SPLITS if held_out_fraction else SPLITS[:1])
        self._corpus = corpus
        self._held_out_fraction = held_out_fraction

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """Return False: a unit is read as a whole."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """Return all units: each has documents of both splits."""
        return self._corpus.units

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **_unused: Any,
    ) -> tf.data.Dataset:
        """Return the documents of the units; if `shuffle`, the units are in an order drawn from `seed`."""
        units = list(self._corpus.units)
        if shard_info:
            units = units[shard_info.index :: shard_info.num_shards]
        if shuffle:
            random.Random(seed).shuffle(units)
        signature = CACHED_FEATURES
        if not self._corpus.tokenised:
            signature = {"key": tf.TensorSpec([], tf.string), "text": tf.TensorSpec([], tf.string)}
        return tf.data.Dataset.from_generator(lambda: self._read(split, units), output_signature=signature)

    @functools.cached_property
    def _threshold(self) -> int:
        hashes = (hashed for hashed, _ in read_corpus(self._corpus, self._corpus.units))
        return held_out_threshold(hashes, self._held_out_fraction)

    def _read(self, split: str, units: Sequence[str]) -> Iterator[dict[str, Any]]:
        for hashed, features in read_corpus(self._corpus, units):
            if (hashed < self._threshold) == (split == "validation"):
                yield features


def pack_documents(dataset: tf.data.Dataset, *, vocabulary: Vocabulary, packing: Packing) -> tf.data.Dataset:
    """Turn a dataset of {"key", "text"} into one of the cached features."""

    def examples(key: bytes, text: bytes) -> Iterator[dict[str, Any]]:
        packed, _ = pack_document(
            key.decode(),
            text.decode(),
            tokenizer=vocabulary.tokenizer,
            cls_id=vocabulary.cls_id,
            sep_id=vocabulary.sep_id,
            packing=packing,
        )
        for index, example in enumerate(packed):
            yield {"example_id": example_id(key.decode(), index), **example._asdict()}

    return dataset.flat_map(
        lambda document: tf.data.Dataset.from_generator(
            examples, args=(document["key"], document["text"]), output_signature=CACHED_FEATURES
        )
    )


class _CachedElsewhereTask(seqio.Task):
    """Read the cache from a given path, or from where another task has it."""

    def __init__(self, *args: Any, cache_path: str | None, cached_as: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cache_path = cache_path
        self._cached_as = cached_as

    @property
    def cache_dir(self) -> str | None:
        if self._cache_path is not None:
            return self._cache_path
        if self._cached_as != self.name:
            return seqio.TaskRegistry.get(self._cached_as).cache_dir
        return super().cache_dir


def register_pretraining_task(
    name: str,
    *,
    corpus: Corpus | None,
    vocabulary: Vocabulary,
    packing: Packing,
    held_out_fraction: float,
    mask_prob: float,
    mask_token_prob: float,
    cache_path: str | None,
) -> None:
    """Register the SeqIO tasks `name` (masked) and `name + "_unmasked"` (to be masked on the device).

    Both read the same documents or the same cache, in the splits "train" and, unless `held_out_fraction` is 0,
    "validation". A name registered before is replaced. Examples longer than SeqIO's `sequence_length` are truncated
    before they are masked.

    Args:
        name: letters, digits and underscores.
        corpus: the source of the text; None if there is only a cache.
        vocabulary: tokenises the text.
        packing: how documents become examples.
        held_out_fraction: share of the documents for the validation split.
        mask_prob: share of the tokens to mask.
        mask_token_prob: share of the masked tokens that become [MASK].
        cache_path: a directory with TFRecords (`tfrecords.add_tfrecords`), or any SeqIO cache of `input_ids`,
            `token_type_ids` and `example_id`; None to look for `name` in SeqIO's global cache directories.

    Raises:
        UserError: if there is neither a corpus nor a cache.
    """
    if corpus is None and cache_path is None:
        raise UserError(f"The task {name} has neither a corpus nor a cache to read: set CORPUS.")
    special = {"cls_id": vocabulary.cls_id, "sep_id": vocabulary.sep_id, "mask_id": vocabulary.mask_id}
    masking = {"mask_prob": mask_prob, "mask_token_prob": mask_token_prob, **special}
    mask = functools.partial(_masked, length=packing.length, masking=masking)
    leave = functools.partial(_unmasked, length=packing.length)
    packed = [seqio.CacheDatasetPlaceholder(required=corpus is None)]
    if corpus is not None and not corpus.tokenised:
        packed.insert(0, functools.partial(pack_documents, vocabulary=vocabulary, packing=packing))
    source = _no_source(held_out_fraction) if corpus is None else None
    features = _features(vocabulary)
    unmasked = {key: features[key] for key in UnmaskedFeatureConverter.TASK_FEATURES}
    for task, step, output in ((name, mask, features), (name + UNMASKED_SUFFIX, leave, unmasked)):
        seqio.TaskRegistry.remove(task)
        seqio.TaskRegistry.add(
            task,
            source=source or CorpusSource(corpus, held_out_fraction=held_out_fraction),
            output_features=output,
            preprocessors=[*packed, step],
            task_cls=_CachedElsewhereTask,
            cache_path=cache_path,
            cached_as=name,
        )


def _cut(dataset: tf.data.Dataset, length: int) -> tf.data.Dataset:
    return dataset.map(lambda x: x | {key: x[key][:length] for key in ("input_ids", "token_type_ids")})


def _masked(
    dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None, *, length: int, masking: Mapping[str, Any]
) -> tf.data.Dataset:
    """Cut examples to SeqIO's `sequence_length`, or else to `length`, and mask them; see `mask_tokens`."""
    length = (sequence_length or {}).get("input_ids", length)
    return mask_tokens(_cut(dataset, length), num_slots=max_predictions(masking["mask_prob"], length), **masking)


def _unmasked(dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None, *, length: int) -> tf.data.Dataset:
    """Cut examples to SeqIO's `sequence_length`, or else to `length`, and add the attention mask."""

    def with_attention_mask(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        ids = features["input_ids"]
        return {"input_ids": ids, "token_type_ids": features["token_type_ids"], "attention_mask": tf.ones_like(ids)}

    return _cut(dataset, (sequence_length or {}).get("input_ids", length)).map(with_attention_mask)


def _no_source(held_out_fraction: float) -> seqio.DataSource:
    def refuse(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        raise UserError(f"The split {split} has no text behind it: read it with use_cached=True.")

    return seqio.FunctionDataSource(refuse, splits=SPLITS if held_out_fraction else SPLITS[:1])


def _features(vocabulary: Vocabulary) -> dict[str, seqio.Feature]:
    pieces, number = SeqioVocabulary(vocabulary), seqio.PassThroughVocabulary(size=0)
    words = {"input_ids", "masked_ids"}
    return {
        key: seqio.Feature(pieces if key in words else number, add_eos=False, dtype=spec.dtype)
        for key, spec in MaskedFeatureConverter.TASK_FEATURES.items()
    }


class UnmaskedFeatureConverter(seqio.FeatureConverter):
    """Pad each feature of an unmasked task to its length with 0, for `seqio.get_dataset` and T5X."""

    TASK_FEATURES: Mapping[str, seqio.FeatureConverter.FeatureSpec] = {
        key: seqio.FeatureConverter.FeatureSpec(dtype=tf.int32)
        for key in ("input_ids", "token_type_ids", "attention_mask")
    }
    MODEL_FEATURES = TASK_FEATURES
    PACKING_FEATURE_DTYPES: Mapping[str, tf.dtypes.DType] = {}

    def __init__(self, pack: bool = False, **kwargs: Any) -> None:
        """Take the arguments of SeqIO's own converters, as T5X calls them.

        Raises:
            UserError: if `pack` is True.
        """
        if pack:
            raise UserError("Pre-training examples are packed when they are made: set pack to False.")
        super().__init__(pack=pack, **kwargs)

    def _convert_features(self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]) -> tf.data.Dataset:
        ds = ds.map(lambda x: {key: x[key] for key in self.TASK_FEATURES})
        return self._pack_or_pad(ds, task_feature_lengths)

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> Mapping[str, int]:
        """Return the lengths unchanged: features keep their names."""
        return task_feature_lengths


class MaskedFeatureConverter(UnmaskedFeatureConverter):
    """Pad each feature of a masked task to its length with 0, for `seqio.get_dataset` and T5X."""

    TASK_FEATURES = UnmaskedFeatureConverter.TASK_FEATURES | {
        "masked_positions": seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
        "masked_ids": seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
        "masked_weights": seqio.FeatureConverter.FeatureSpec(dtype=tf.float32),
    }
    MODEL_FEATURES = TASK_FEATURES


def feature_lengths(sequence_length: int, *, mask_prob: float | None) -> dict[str, int]:
    """Return SeqIO's `sequence_length` of a task: K for the masked features; `mask_prob` is None for unmasked tasks."""
    lengths = dict.fromkeys(UnmaskedFeatureConverter.TASK_FEATURES, sequence_length)
    if mask_prob is not None:
        slots = max_predictions(mask_prob, sequence_length)
        lengths |= dict.fromkeys(("masked_positions", "masked_ids", "masked_weights"), slots)
    return lengths
