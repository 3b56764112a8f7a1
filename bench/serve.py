"""Time a server and the forward pass alone: python -m bench.serve --model=small --clients=16 --requests=400

`electra serve` runs in a separate process, with random weights. Each client is a thread that sends one text per request
over a persistent connection, and the next text when it has the answer. The forward pass computes the same rows in this
process, before the server starts: one at a time, and in batches as large as the server's.
"""

import argparse
import functools
import http.client
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from bench import models
from bench.glue_lengths import DECILES
from bench.predict import random_model, texts_of
from bench.timing import in_words, machine
from electra_jax.checkpoints.model_dir import write_model
from electra_jax.data.buckets import in_order_of_length
from electra_jax.data.forward import Row
from electra_jax.inference.api import Model
from electra_jax.inference.inputs import FIELDS


def main() -> None:
    """Print the rates of the forward pass and of the server, the time of a request, and the ratio."""
    options = parse_arguments()
    options.texts = options.requests
    print(machine(["jax", "jaxlib", "starlette", "uvicorn"]))
    model, texts = random_model(options.model, options.seed), texts_of(options)
    print(f"{options.model}, {len(texts)} texts as long as those of {options.task}")
    rows = rows_of(model, texts)
    alone = forward_pass(model, rows, 1)
    print(f"forward pass alone, one row at a time: {in_words(alone)}; {len(rows) / sum(alone):,.1f} texts/s")
    batched = sum(forward_pass(model, rows, options.max_batch_size))
    print(f"forward pass alone, batches of {options.max_batch_size}: {len(rows) / batched:,.1f} texts/s")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        directory.mkdir()
        write_model(directory, model.description, {"params": model.params}, step=0, vocabulary=model.vocabulary)
        wall, seconds = load(directory, texts, options)
    print(
        f"electra serve, {options.clients} clients: {len(texts) / wall:,.1f} requests/s; a request: "
        f"{in_words(seconds)}, p99 {1e3 * np.percentile(seconds, 99):,.0f} ms"
    )
    print(f"server / forward pass in batches: {batched / wall:.3f} of its rate")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Times a server beside the forward pass alone.")
    parser.add_argument("--model", choices=models.SIZES, default="small")
    parser.add_argument("--task", choices=DECILES, default="stsb", help="texts are as long as those of this task")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--max_batch_size", type=int, default=16)
    parser.add_argument("--max_wait_ms", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def rows_of(model: Model, texts: Sequence[str]) -> list[Row]:
    """Tokenise texts to rows without padding."""
    ids = [[model.pieces.cls_id, *row, model.pieces.sep_id] for row in model.pieces.encode_batch(texts)]
    return [{"input_ids": np.array(row, np.int32), "token_type_ids": np.zeros(len(row), np.int32)} for row in ids]


def forward_pass(model: Model, rows: Sequence[Row], batch_size: int) -> list[float]:
    """Return the seconds of each batch, after every shape was compiled."""
    batches = [batch for _, batch in in_order_of_length(rows, batch_size=batch_size, buckets=model.lengths)]
    run = functools.partial(run_batch, model)
    for batch in {batch["input_ids"].shape: batch for batch in batches}.values():
        run(batch)
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        run(batch)
        seconds.append(time.perf_counter() - start)
    return seconds


def run_batch(model: Model, batch: dict[str, np.ndarray]) -> None:
    """Compute a batch and wait for the result."""
    jax.block_until_ready(model.launch(*(batch[name] for name in FIELDS)))


def load(directory: Path, texts: Sequence[str], options: argparse.Namespace) -> tuple[float, list[float]]:
    """Start a server, and return the seconds that it took for all texts, and for each request."""
    limits = [f"--gin.MAX_BATCH_SIZE={options.max_batch_size}", f"--gin.MAX_WAIT_MS={options.max_wait_ms}"]
    command = [sys.executable, "-m", "electra_jax", "serve", str(directory), "--gin.PORT=0", *limits]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port = next(int(found[1]) for line in server.stdout if (found := re.search(r"^serving .*:(\d+);", line)))
            parts = [texts[client :: options.clients] for client in range(options.clients)]
            start = time.perf_counter()
            with ThreadPoolExecutor(options.clients) as clients:
                seconds = [one for part in clients.map(functools.partial(ask_all, port), parts) for one in part]
            return time.perf_counter() - start, seconds
        finally:
            server.terminate()


def ask_all(port: int, texts: Sequence[str]) -> list[float]:
    """Send each text in a separate request over one connection, and return the seconds of each request."""
    connection, seconds = http.client.HTTPConnection("127.0.0.1", port), []
    for text in texts:
        start = time.perf_counter()
        connection.request("POST", "/predict", json.dumps(text))
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {body.decode()}")
        seconds.append(time.perf_counter() - start)
    connection.close()
    return seconds


if __name__ == "__main__":
    main()
