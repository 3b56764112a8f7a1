"""A line of 40 MB is tokenised in a bounded memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.command_line import SPECIAL, WORDS

# 123 when this was written, and 5,053 where the line is neither divided nor tokenised in parts.
MOST_MEGABYTES = 500
# Prints the megabytes by which a cache of a corpus exceeds what the process had, and the number of tokens.
PROGRAM = r"""
import re, sys
from pathlib import Path
from electra_jax.tasks.corpora.divided import divide
from electra_jax.tasks.corpora.open import open_corpus
from electra_jax.tasks.pretraining import cache
from electra_jax.tasks.pretraining.cache_worker import run_job
from electra_jax.tasks.pretraining.packing import COMPLETE, Packing
from electra_jax.tasks.vocabulary import load_vocabulary

def memory():
    # Not `ru_maxrss`, which begins with that of the parent.
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

def build(path):
    corpus = open_corpus(path, text_format="auto", text_field="text", skip_undecodable=False)
    packing = Packing(length=512, one_segment_share=0.1, random_length_share=0.05, seed=0, builder=COMPLETE)
    options = {"num_processes": 1, "show_progress": False, "held_out_fraction": 0.0}
    divided = divide(corpus, sequence_length=512)
    return cache.build_cache(divided, vocabulary, cache_dir=folder, packing=packing, **options)

# In this process, whose memory is measured.
cache._Worker.run = lambda worker, job: run_job(worker._setup, job)
folder, vocabulary = sys.argv[1], load_vocabulary(sys.argv[2], lowercase=None)
build(sys.argv[3])
before = memory()
made = build(sys.argv[4])
print(memory() - before, made)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say how much memory was used")
def test_a_line_of_40_megabytes(tmp_path: Path) -> None:
    vocabulary, short, long = (tmp_path / name for name in ("vocab.txt", "short.txt", "long.txt"))
    vocabulary.write_text("\n".join([*SPECIAL, *WORDS]) + "\n")
    repeated = " ".join(WORDS)
    short.write_text(json.dumps({"text": repeated}) + "\n")
    times = 40_000_000 // len(repeated)
    long.write_text(json.dumps({"text": " ".join([repeated] * times)}) + "\n")
    arguments = [str(path) for path in (tmp_path / "c", vocabulary, short, long)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    megabytes, made = done.stdout.split()
    record = json.loads((Path(made) / "made_by.json").read_text())
    assert record["unknown"]["tokens"] == times * len(WORDS)
    assert float(megabytes) < MOST_MEGABYTES
