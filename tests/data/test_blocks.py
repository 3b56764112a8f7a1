"""Blocks hold what the cache holds, and a gather pads it."""

import json
import pathlib
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest

from electra_jax.data.blocks import SEAL, BlocksWriter, TokenBlocks, open_blocks
from electra_jax.errors import UserError
from electra_jax.tasks.pretraining.cached_blocks import blocks_of_cache
from electra_jax.tasks.pretraining.tfrecords import encode_example, frame


def _examples(num_examples: int, vocab_size: int) -> list[tuple[list[int], list[int]]]:
    rng = random.Random(num_examples)
    examples = []
    for _ in range(num_examples):
        first, second = rng.randint(1, 20), rng.choice([0, rng.randint(1, 20)])
        examples.append(([rng.randrange(vocab_size) for _ in range(first + second)], [0] * first + [1] * second))
    return examples


def _cache(folder: pathlib.Path, shards: list[list[tuple[list[int], list[int]]]], split: str = "train") -> str:
    folder.mkdir(exist_ok=True)
    for number, shard in enumerate(shards):
        records = [encode_example(index, *example) for index, example in enumerate(shard)]
        (folder / f"{split}.tfrecord-{number:05d}-of-{len(shards):05d}").write_bytes(frame(records))
    (folder / "COMPLETED").touch()
    return str(folder)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(30000, np.uint16), (2**16, np.uint16), (2**18, np.uint32)])
def test_rows_are_the_examples_of_the_cache(tmp_path: pathlib.Path, vocab_size: int, dtype: type) -> None:
    # More than one parsed chunk, and ids up to the last one that the type holds.
    shards = [_examples(5000, vocab_size), [([vocab_size - 1], [0])], _examples(70, vocab_size)]
    examples = [example for shard in shards for example in shard]
    blocks = blocks_of_cache(_cache(tmp_path / "c", shards), "train", vocab_size=vocab_size)
    assert blocks.tokens.dtype == dtype
    assert isinstance(blocks.tokens, np.memmap)
    assert len(blocks) == len(examples)
    assert blocks.longest() == max(len(ids) for ids, _ in examples)
    rows_B = np.random.default_rng(0).permutation(len(examples))
    batch = blocks.gather(rows_B, 41)
    for key, values_BL in batch.items():
        assert values_BL.dtype == np.int32, key
        assert values_BL.shape == (len(examples), 41)
    for place, row in enumerate(rows_B):
        ids, types = examples[row]
        padding = [0] * (41 - len(ids))
        assert batch["input_ids"][place].tolist() == ids + padding
        assert batch["token_type_ids"][place].tolist() == types + padding
        assert batch["attention_mask"][place].tolist() == [1] * len(ids) + padding


def test_too_long_a_row_loses_its_end() -> None:
    blocks = TokenBlocks(np.arange(1, 8, dtype=np.uint16), np.array([0, 2, 7]), np.array([2, 3]), 8)
    batch = blocks.gather(np.array([1, 0]), 4)
    assert batch["input_ids"].tolist() == [[3, 4, 5, 6], [1, 2, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1], [0, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_converted_once(tmp_path: pathlib.Path) -> None:
    cache = _cache(tmp_path / "c", [_examples(10, 100)])
    first = blocks_of_cache(cache, "train", vocab_size=100)
    stamp = (tmp_path / "c/train.blocks/tokens.npy").stat().st_mtime_ns
    again = blocks_of_cache(cache, "train", vocab_size=100)
    assert (tmp_path / "c/train.blocks/tokens.npy").stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(first.tokens, again.tokens)


def test_a_split_that_is_not_there_has_no_example(tmp_path: pathlib.Path) -> None:
    blocks = blocks_of_cache(_cache(tmp_path / "c", [_examples(10, 100)]), "validation", vocab_size=100)
    assert len(blocks) == 0
    assert blocks.longest() == 0


def test_another_vocabulary_is_refused(tmp_path: pathlib.Path) -> None:
    cache = _cache(tmp_path / "c", [[([5, 99, 6], [0, 0, 1])]])
    with pytest.raises(UserError, match="token id 99, but the vocabulary has 99"):
        blocks_of_cache(cache, "train", vocab_size=99)
    assert not (tmp_path / "c/train.blocks").exists()
    assert len(blocks_of_cache(cache, "train", vocab_size=100)) == 1
    with pytest.raises(UserError, match="token id 99, but the vocabulary has 50"):
        blocks_of_cache(cache, "train", vocab_size=50)


def test_bad_caches_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="COMPLETED"):
        blocks_of_cache(str(tmp_path), "train", vocab_size=100)
    strange = _cache(tmp_path / "strange", [[([5, 6, 7], [0, 1, 0])]])
    with pytest.raises(UserError, match="token_type_ids"):
        blocks_of_cache(strange, "train", vocab_size=100)
    damaged = _cache(tmp_path / "damaged", [_examples(10, 100)])
    path = next((tmp_path / "damaged").glob("train*"))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="damaged"):
        blocks_of_cache(damaged, "train", vocab_size=100)
    assert not list((tmp_path / "damaged").glob("*.blocks"))


def test_an_unfinished_writer_leaves_nothing_that_opens(tmp_path: pathlib.Path) -> None:
    with pytest.raises(RuntimeError), BlocksWriter(tmp_path, vocab_size=10) as writer:  # noqa: PT012
        writer.add(np.array([1, 2]), np.array([2]), np.array([1]))
        raise RuntimeError
    with pytest.raises(UserError, match=r"is damaged .*No such file"):
        open_blocks(tmp_path)


def test_files_that_are_not_what_was_written(tmp_path: pathlib.Path) -> None:
    """Without a seal, or with one of whoever changed them."""
    folder = tmp_path / "train.blocks"
    folder.mkdir()
    with BlocksWriter(folder, vocab_size=64) as writer:
        writer.add(np.arange(40), np.array([10, 10, 20]), np.array([5, 10, 8]))
    assert open_blocks(folder).vocab_size == 40
    for name in ("offsets", "second_starts", "vocab_size", "tokens"):
        path = folder / f"{name}.npy"
        whole = path.read_bytes()
        # Its header ends within a bracket, or is that of an array larger than any memory.
        for content in (whole.replace(b")", b" "), whole.replace(b"(", b"((" + b"9" * 15 + b",", 1)[: len(whole)]):
            path.write_bytes(content)
            with pytest.raises(UserError, match="is damaged"):
                open_blocks(folder)
        path.write_bytes(whole)
    np.save(folder / "tokens.npy", np.full(40, 40, np.uint16))
    with pytest.raises(UserError, match="it holds the token id 40 of 40"):
        open_blocks(folder)


def test_records_of_other_features_are_refused(tmp_path: pathlib.Path) -> None:
    """TensorFlow calls them no lost data."""
    path = pathlib.Path(_cache(tmp_path / "cache", [_examples(3, 100)]))
    (shard,) = path.glob("train.tfrecord*")
    shard.write_bytes(frame([b"\xff" * 20]))
    with pytest.raises(UserError, match="is damaged"):
        blocks_of_cache(str(path), "train", vocab_size=100)


def test_blocks_need_numpy_only() -> None:
    code = "import sys, electra_jax.data.blocks; print([m for m in ('tensorflow', 'seqio', 'jax') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_cache_that_was_copied_in_part_is_refused(tmp_path: pathlib.Path) -> None:
    cache = tmp_path / "c"
    _cache(cache, [_examples(number + 2, 100) for number in range(7)])
    for number in (1, 4, 5, 6):
        (cache / f"train.tfrecord-{number:05d}-of-00007").unlink()
    with pytest.raises(UserError, match="holds 3 of the 7 files of its train split: it was copied in part"):
        blocks_of_cache(str(cache), "train", vocab_size=100)
    assert not list(cache.glob("*.blocks"))
    # Without a file there is no name that tells their number, but SeqIO's record does.
    (cache / "info.validation.json").write_text(json.dumps({"num_shards": 2}))
    with pytest.raises(UserError, match="holds 0 of the 2 files of its validation split"):
        blocks_of_cache(str(cache), "validation", vocab_size=100)


@pytest.mark.parametrize("record", ["made_by.json", "stats.train.json"])
def test_a_cache_has_as_many_examples_as_it_says(record: str, tmp_path: pathlib.Path) -> None:
    cache = tmp_path / "c"
    _cache(cache, [_examples(10, 100)])
    counts = {"examples": 12}
    (cache / record).write_text(json.dumps({"train": counts} if record == "made_by.json" else counts))
    with pytest.raises(UserError, match="holds 10 of the 12 examples of its train split"):
        blocks_of_cache(str(cache), "train", vocab_size=100)
    assert not list(cache.glob("*.blocks"))


def _flip(path: pathlib.Path) -> None:
    """Change one bit of the last byte, which numpy reads without a word."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["tokens", "offsets", "second_starts", "vocab_size"])
def test_blocks_that_are_not_what_was_written_are_refused(name: str, tmp_path: pathlib.Path) -> None:
    _cache(tmp_path, [_examples(10, 100)])
    path = tmp_path / "train.blocks" / f"{name}.npy"
    blocks_of_cache(str(tmp_path), "train", vocab_size=100)
    whole = path.read_bytes()
    for damage, sentence in (
        (lambda: _flip(path), "is not what was written"),
        (lambda: path.write_bytes(whole[:-3]), "is not what was written"),
        (path.unlink, "is missing"),
    ):
        damage()
        with pytest.raises(UserError, match=f"train.blocks is damaged .{name}.npy {sentence}"):
            blocks_of_cache(str(tmp_path), "train", vocab_size=100)
        path.write_bytes(whole)
    assert len(blocks_of_cache(str(tmp_path), "train", vocab_size=100)) == 10


@pytest.mark.parametrize("size", [0, 20, -3])
@pytest.mark.parametrize("name", ["tokens", "offsets", "second_starts", "vocab_size"])
def test_blocks_without_a_seal_are_read_unless_they_are_cut_off(name: str, size: int, tmp_path: pathlib.Path) -> None:
    """Those of an earlier version have none."""
    _cache(tmp_path, [_examples(10, 100)])
    sealed = blocks_of_cache(str(tmp_path), "train", vocab_size=100)
    folder = tmp_path / "train.blocks"
    (folder / SEAL).unlink()
    np.testing.assert_array_equal(open_blocks(folder).tokens, sealed.tokens)
    path = folder / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"train\.blocks is damaged"):
        open_blocks(folder)


def test_blocks_of_different_lengths_are_refused(tmp_path: pathlib.Path) -> None:
    for name, number in (("a", 10), ("b", 9)):
        blocks_of_cache(_cache(tmp_path / name, [_examples(number, 100)]), "train", vocab_size=100)
    folder = tmp_path / "a/train.blocks"
    (folder / SEAL).unlink()
    shutil.copy(tmp_path / "b/train.blocks/tokens.npy", folder)
    with pytest.raises(UserError, match="its files are of different lengths"):
        open_blocks(folder)


def test_blocks_of_a_cache_that_cannot_be_written_go_to_the_folder_of_caches(
    small_disk: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    cache, caches = small_disk / "c", tmp_path / "caches"
    _cache(cache, [_examples(10, 100)])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    blocks = blocks_of_cache(str(cache), "train", vocab_size=100, cache_dir=str(caches))
    assert len(blocks) == 10
    made = list((caches / "blocks").glob("c-*/train.blocks"))
    assert len(made) == 1
    # A cache that was built anew is another.
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    _cache(cache, [_examples(8, 100)])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert len(blocks_of_cache(str(cache), "train", vocab_size=100, cache_dir=str(caches))) == 8


def test_a_cache_that_cannot_be_written_and_has_its_blocks_is_read_in_place(
    small_disk: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    cache = _cache(small_disk / "c", [_examples(10, 100)])
    blocks_of_cache(cache, "train", vocab_size=100)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert len(blocks_of_cache(cache, "train", vocab_size=100, cache_dir=str(tmp_path / "caches"))) == 10
    assert not (tmp_path / "caches").exists()
