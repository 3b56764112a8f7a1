"""Make a Parquet corpus, and measure the speed and the memory of `electra cache` on it.

    python -m bench.parquet_cache --megabytes=2000

The corpus is synthetic: words drawn by Zipf's law, documents of 20 to 2,000 words, a column `text` among others. A
vocabulary of those words is next to it. Both are made once and kept if --folder is given.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from bench.timing import machine, stopwatch

NUM_WORDS = 20_000
DOCUMENTS_AT_ONCE = 500
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def main() -> None:
    """Print the speed and the memory of `electra cache`."""
    parser = argparse.ArgumentParser(description="Measures `electra cache` on a Parquet corpus.")
    parser.add_argument("--megabytes", type=int, default=2000, help="of text")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that tokenise")
    parser.add_argument("--folder", type=Path, default=None, help="of the corpus, which is made there; else removed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True, parents=True)
        path = folder / f"{options.megabytes}.parquet"
        if not path.exists():
            write_corpus(path, options.megabytes * 10**6)
        command = [sys.executable, "-m", "electra_jax", "cache"] + [
            f"--gin.{name}={value!r}"
            for name, value in {
                "CORPUS": str(path),
                "TOKENIZER": str(folder / "vocab.txt"),
                "CACHE_DIR": str(Path(temporary) / "cache"),
                "NUM_PROCESSES": options.processes,
            }.items()
        ]
        memory: list[dict[int, int]] = []
        elapsed = stopwatch(lambda: run(command, memory))
    print(machine(["pyarrow", "tokenizers", "numpy"]))
    together = max(sum(sizes.values()) for sizes in memory)
    largest = max(max(sizes.values(), default=0) for sizes in memory)
    print(
        f"{options.megabytes} MB of text, {options.processes} processes: {options.megabytes / elapsed.wall:.2f} MB/s, "
        f"{options.megabytes / elapsed.cpu:.2f} MB per second of CPU time; at most {together / 1e6:.0f} MB of memory "
        f"in all processes together, {largest / 1e6:.0f} MB in one"
    )


def write_corpus(path: Path, num_bytes: int) -> None:
    """Write a Parquet file with at least `num_bytes` of text, and the vocabulary of its words next to it."""
    draw = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = sorted({"".join(draw.choice(letters, draw.integers(2, 10))) for _ in range(NUM_WORDS)})
    (path.parent / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *words, ".", "##s"]) + "\n")
    shares = 1 / np.arange(1, len(words) + 1)
    shares /= shares.sum()
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("url", pa.string())])
    written = number = 0
    part = path.with_suffix(".part")
    with parquet.ParquetWriter(part, schema) as writer:
        while written < num_bytes:
            texts = []
            for length in draw.integers(20, 2000, DOCUMENTS_AT_ONCE):
                chosen = [words[index] for index in draw.choice(len(words), length, p=shares)]
                lines = [" ".join(chosen[start : start + 15]) + "." for start in range(0, length, 15)]
                texts.append("\n".join(lines))
            written += sum(map(len, texts))
            numbers = range(number, number + len(texts))
            number += len(texts)
            writer.write_table(pa.table([list(numbers), texts, [f"page/{each}" for each in numbers]], schema=schema))
    part.rename(path)


def run(command: list[str], memory: list[dict[int, int]]) -> None:
    """Run a command, and append the memory of each of its processes, in bytes, to `memory` every 0.2 s."""
    done = threading.Event()
    process = subprocess.Popen(command)

    def watch() -> None:
        while not done.wait(0.2):
            memory.append(resident(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    done.set()
    watcher.join()
    if code:
        raise SystemExit(f"the command ended with exit code {code}")


def resident(root: int) -> dict[int, int]:
    """Return the resident memory of a process and its descendants, in bytes, by process id (on Linux).

    Pages of memory-mapped files, such as the finished cache, do not count: the system can reclaim them at any time.
    """
    found: dict[int, int] = {}
    left = [root]
    while left:
        number = left.pop()
        try:
            _, pages, of_files, *_ = map(int, Path(f"/proc/{number}/statm").read_text().split())
            # Linux lists child processes by the thread that started them.
            threads = Path(f"/proc/{number}/task").iterdir()
            children = [child for thread in threads for child in (thread / "children").read_text().split()]
        except OSError:
            continue  # it ended meanwhile
        found[number] = (pages - of_files) * os.sysconf("SC_PAGE_SIZE")
        left += map(int, children)
    return found


if __name__ == "__main__":
    main()
