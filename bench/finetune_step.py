"""Time fine-tuning with and without padding: python -m bench.finetune_step --model=small --batch_size=32

Fine-tuning groups rows of similar length and pads a batch to the shortest of a few lengths that holds it. The program
times steps at each of these lengths in turn, counts the batches of each length in an epoch of rows as long as those of
GLUE's tasks, and computes from both how much faster this is than padding every row to 128. Needs JAX, Flax, Optax,
NumPy and Gin.
"""

import argparse
import functools
import time
from collections.abc import Callable

import jax
import numpy as np
from flax import linen as nn

from bench import models
from bench.glue_lengths import BUCKETS, DECILES, LONGEST, batches_by_bucket, lengths, synthetic_rows
from bench.pretrain_step import prepare
from bench.timing import in_words, machine, peak_memory_bytes, spread, stopwatch
from electra_jax.data.buckets import stack
from electra_jax.finetuning import steps as finetuning
from electra_jax.model.config import EncoderConfig
from electra_jax.model.finetuned import FinetunedModel
from electra_jax.model.heads import WITHOUT_ANSWERS, HeadConfig
from electra_jax.model.layers import DROPOUT_GENERATORS
from electra_jax.pretraining import flops
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.state import Batch, TrainState

HEAD = HeadConfig(
    kind="sequence_classification",
    num_labels=2,
    dropout_prob=0.1,
    **WITHOUT_ANSWERS,
    classifier_pooling="cls",
)
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def main() -> None:
    """Print the time of the steps, then the gain for each task."""
    options = parse_arguments()
    prepare(1)
    print(machine(["jax", "jaxlib", "flax", "numpy"]))
    print(f"{options.model}, batch {options.batch_size}, {options.dtype}, {jax.devices()[0].device_kind}")
    recipe = models.recipe(options.model, dtype=options.dtype, fused=options.fused, prng=options.prng)
    config = recipe.model.discriminator_config
    model, rule = FinetunedModel(config, HEAD), make_optimizer(recipe.optimizer)
    state = jax.jit(lambda key: nn.unbox(finetuning.init_state(key, model, rule)))(jax.random.key(options.seed))
    loss = finetuning.LossConfig("classification", 0.5, options.batch_size, None, 0.05)
    step = jax.jit(
        functools.partial(finetuning.finetune_step, model=model, loss=loss, optimizer=rule, accumulation_steps=1),
        donate_argnums=0,
    )
    seconds, losses = time_buckets(step, state, config.vocab_size, options)
    for length in options.buckets:
        print(describe(config, options, length, seconds[length]))
    print(f"peak memory {peak_memory_bytes() / 1e6:,.0f} MB of the process, compilation included")
    print(f"loss {losses[0]:.3f} at the first step, {losses[-1]:.3f} at the last of {len(losses)} at length {LONGEST}")
    for task in DECILES:
        print(gain(task, seconds, options))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Times steps of fine-tuning at each length that rows are padded to.")
    parser.add_argument("--model", choices=models.SIZES, default="small")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the products")
    parser.add_argument("--fused", action="store_true", help="attention by the backend's kernel, without its dropout")
    parser.add_argument("--prng", choices=DROPOUT_GENERATORS, default="threefry2x32", help="of dropout")
    parser.add_argument("--peak_tflops", type=float, help="matrix peak of the device: prints the share that is used")
    parser.add_argument("--steps", type=int, default=8, help="that are timed at each length")
    parser.add_argument("--buckets", type=int, nargs="+", default=BUCKETS, help=f"to pad to; the last is {LONGEST}")
    parser.add_argument("--examples", type=int, default=8192, help="of an epoch that is counted")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def time_buckets(
    step: Step, state: TrainState, vocab_size: int, options: argparse.Namespace
) -> tuple[dict[int, list[float]], list[float]]:
    """Return the seconds of every timed step at each length, and the losses at `LONGEST`, where one batch repeats."""
    full = {
        length: synthetic_rows(np.full(options.batch_size, length), vocab_size, options.seed)
        for length in options.buckets
    }
    batches = {
        length: jax.device_put(stack(rows, length=length, size=options.batch_size)) for length, rows in full.items()
    }
    seconds: dict[int, list[float]] = {length: [] for length in options.buckets}
    losses = []
    started = time.perf_counter()
    for number in range(options.steps + 1):
        for length in options.buckets:

            def work(length: int = length) -> None:
                nonlocal state, sums
                state, sums = jax.block_until_ready(step(state, batches[length]))

            sums: dict[str, jax.Array] = {}
            seconds[length].append(stopwatch(work).wall)
            if length == LONGEST:
                losses.append(float(sums["loss"] / sums["loss_weight"]))
        if not number:
            print(
                f"trace and compile {len(options.buckets)} lengths: {time.perf_counter() - started:.1f} s", flush=True
            )
    return {length: values[1:] for length, values in seconds.items()}, losses


def describe(config: EncoderConfig, options: argparse.Namespace, length: int, seconds: list[float]) -> str:
    """Return the output line of a length."""
    median = spread(seconds).median
    cost = 3 * flops.encoder_flops(config, options.batch_size, length)
    share = f", {cost / median / options.peak_tflops / 1e12:.1%} of the stated peak" if options.peak_tflops else ""
    return (
        f"length {length}: {in_words(seconds)}; {options.batch_size / median:,.1f} examples/s, "
        f"{options.batch_size * length / median:,.0f} tokens/s, {cost:.4g} matrix FLOPs counted, "
        f"{cost / median:.3g} FLOP/s{share}"
    )


def gain(task: str, seconds: dict[int, list[float]], options: argparse.Namespace) -> str:
    """Return an output line with the gain of a task over padding all rows to `LONGEST`."""
    lengths_N = lengths(task, options.examples, options.seed)
    counts = batches_by_bucket(lengths_N, options.buckets, batch_size=options.batch_size, seed=options.seed)
    num_batches = sum(counts.values())
    computed = options.batch_size * sum(length * count for length, count in counts.items()) / lengths_N.sum()
    padded = options.batch_size * num_batches * LONGEST / lengths_N.sum()
    # Both times of a ratio are from the same round, so that other load on the machine slows both.
    ratios = [
        num_batches * longest / sum(counts[length] * seconds[length][place] for length in counts)
        for place, longest in enumerate(seconds[LONGEST])
    ]
    found = spread(ratios)
    return (
        f"{task}: mean length {lengths_N.mean():.1f}; tokens computed per useful one {computed:.2f}, "
        f"padded to {LONGEST} {padded:.2f}; rate over padded: median {found.median:.2f}, "
        f"quartiles {found.lower_quartile:.2f} to {found.upper_quartile:.2f}, n {found.n}"
    )


if __name__ == "__main__":
    main()
