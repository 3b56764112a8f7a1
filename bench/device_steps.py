"""Time the pre-training step in many settings on one accelerator: python -m bench.device_steps --peak_tflops=989

To save time on a lent machine, all programs are compiled at once, each in a thread, and then timed one after the other,
several dispatches each. The results are printed, a line for each setting, and written as JSON to --output. See
bench.pretrain_step for a single setting.
"""

import argparse
import concurrent.futures
import itertools
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bench import models
from bench.pretrain_step import (
    WARM_UP_STEPS,
    Compiled,
    compile_step,
    counted_flops,
    data_mesh,
    new_state,
    prepare,
    stacks,
    synthetic_batches,
    time_steps,
)
from bench.timing import machine, spread

STEPS_A_DISPATCH = 10
DISPATCHES = 12


class Variant(NamedTuple):
    """Hold a setting of the step; `bindings` are lines of Gin."""

    model: str
    batch_size: int
    sequence_length: int
    dtype: str = "bfloat16"
    fused: bool = True
    prng: str = "rbg"
    together: int = STEPS_A_DISPATCH
    bindings: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the setting in words."""
        attention = "fused" if self.fused else "exact"
        more = "".join(f", {line}" for line in self.bindings)
        return (
            f"{self.model} {self.batch_size} x {self.sequence_length}, {self.dtype}, {attention}, {self.prng}, "
            f"{self.together} a dispatch{more}"
        )


LOOP = ("encoder.EncoderConfig.scan_unroll = 1",)
PLAIN = Variant("small", 128, 128)
# The first setting; the same with one change at a time, and with three; then batch sizes and other models.
VARIANTS = [
    PLAIN,
    PLAIN._replace(dtype="float32", fused=False),
    PLAIN._replace(fused=False),
    PLAIN._replace(prng="threefry2x32"),
    PLAIN._replace(together=1),
    PLAIN._replace(bindings=LOOP),
    PLAIN._replace(fused=False, prng="threefry2x32", together=1),
    PLAIN._replace(batch_size=1024),
    Variant("base", 256, 128),
    Variant("base", 64, 512),
    Variant("base", 64, 512, fused=False),
    Variant("modern_small", 128, 128),
    Variant("modern_small", 128, 128, fused=False),
    Variant("modern_small", 16, 1024),
    Variant("modern_base", 32, 512, bindings=LOOP),
]


def main() -> None:
    """Compile all programs, time each, and print and write the results."""
    options = parse_arguments()
    prepare(1)
    described = f"{machine(['jax', 'jaxlib', 'flax', 'numpy'])}; {jax.devices()[0].device_kind}"
    print(described, flush=True)
    variants = [one for one in VARIANTS if options.only is None or one.model in options.only]
    if options.shrink:
        kinds = itertools.product(options.only or models.SIZES, ("bfloat16", "float32"))
        variants = [Variant(model, 2, 32, dtype, together=2) for model, dtype in kinds]
    # Gin's configuration is global, so recipes are made in this thread.
    recipes = [recipe_of(variant) for variant in variants]
    with concurrent.futures.ThreadPoolExecutor(options.threads) as pool:
        programs = list(pool.map(attempt, variants, recipes))
    print(f"compiled {len(programs)} programs", flush=True)
    rows = []
    for variant, recipe, program in zip(variants, recipes, programs, strict=True):
        row = program if isinstance(program, str) else timed(variant, recipe, program, options.peak_tflops)
        print(f"{variant}: {row}", flush=True)
        rows.append({"setting": str(variant), "result": row})
        if options.output:
            options.output.write_text(
                json.dumps(
                    {
                        "machine": described,
                        "command": " ".join(["python -m bench.device_steps", *sys.argv[1:]]),
                        "rows": rows,
                    },
                    indent=2,
                )
            )


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Times the pre-training step in many settings.")
    parser.add_argument("--peak_tflops", type=float, required=True, help="matrix peak of the device in bfloat16")
    parser.add_argument("--only", nargs="+", choices=models.SIZES)
    parser.add_argument("--threads", type=int, default=8, help="that compile at once")
    parser.add_argument("--shrink", action="store_true", help="tiny batches, to rehearse without an accelerator")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def attempt(variant: Variant, recipe: models.Recipe) -> Compiled | str:
    """Compile a variant's program; return the traceback as text if that fails, so that the others still run."""
    try:
        mesh = data_mesh(1)
        shapes = jax.eval_shape(lambda: new_state(recipe, variant.sequence_length, 0, mesh))
        return compile_step(recipe, shapes, one_dispatch(variant, recipe), variant.together)
    except Exception:
        return traceback.format_exc(limit=-1)


def recipe_of(variant: Variant) -> models.Recipe:
    """Return the recipe that a variant names."""
    return models.recipe(
        variant.model, dtype=variant.dtype, fused=variant.fused, prng=variant.prng, bindings=variant.bindings
    )


def one_dispatch(variant: Variant, recipe: models.Recipe) -> Any:
    """Return the batches of one dispatch, stacked if there are several."""
    mesh = data_mesh(1)
    batches = synthetic_batches(recipe, variant.batch_size, variant.sequence_length, variant.together, 0, mesh)
    return stacks(batches, variant.together, mesh)[0] if variant.together > 1 else batches[0]


def timed(variant: Variant, recipe: models.Recipe, program: Compiled, peak_tflops: float) -> dict[str, Any]:
    """Return the statistics of a variant's step, from dispatches that repeat the same batches.

    There are `DISPATCHES` dispatches of `STEPS_A_DISPATCH` steps, or proportionally more of fewer steps.
    """
    mesh = data_mesh(1)
    state = new_state(recipe, variant.sequence_length, 0, mesh)
    dispatches = DISPATCHES * max(1, STEPS_A_DISPATCH // variant.together)
    batches = [one_dispatch(variant, recipe)] * (dispatches + WARM_UP_STEPS)
    started = time.perf_counter()
    elapsed, losses = time_steps(program.step, state, batches, recipe, variant.together)
    wall = spread([step.wall for step in elapsed])
    flops = counted_flops(recipe, variant.batch_size, variant.sequence_length)
    return {
        "step_ms": round(1e3 * wall.median, 3),
        "quartiles_ms": [round(1e3 * wall.lower_quartile, 3), round(1e3 * wall.upper_quartile, 3)],
        "n": wall.n,
        "examples_per_second": round(variant.batch_size / wall.median, 1),
        "flops_per_step": flops,
        "tflops_per_second": round(flops / wall.median / 1e12, 2),
        "mfu": round(flops / wall.median / 1e12 / peak_tflops, 4),
        "trace_seconds": round(program.trace_seconds, 1),
        "compile_seconds": round(program.compile_seconds, 1),
        "temporary_megabytes": round(program.temporary_bytes / 1e6),
        "loss_first_and_last": [round(losses[0], 3), round(losses[-1], 3)],
        "seconds_in_all": round(time.perf_counter() - started, 1),
    }


if __name__ == "__main__":
    main()
