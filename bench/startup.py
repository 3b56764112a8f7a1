"""Time the start of commands: python -m bench.startup

The program times `electra --help`, an import of the package and of its pure core, and a real `electra pretrain` until
it has saved its first step. The latter is started twice: the first start tokenises its text, compiles, and stores the
compiled programs. Every command runs in a separate process, as a user runs it; this one does not import the package.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.timing import Elapsed, in_words, machine, spread, stopwatch

HELP = [sys.executable, "-m", "electra_jax", "--help"]
IMPORTS = ("electra_jax", "electra_jax.pretraining.steps")


def main() -> None:
    """Print one line of times for each command."""
    options = parse_arguments()
    print(machine(["jax", "jaxlib", "flax", "tensorflow", "seqio"]), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"ELECTRA_CACHE_DIR": str(Path(folder) / "cache")}
        quick = {"electra --help": HELP} | {
            f"import {name}": [sys.executable, "-c", f"import {name}"] for name in IMPORTS
        }
        elapsed = [
            {name: started(command, environment) for name, command in quick.items()} for _ in range(options.rounds)
        ]
        for name in quick:
            print(describe(name, [times[name] for times in elapsed]), flush=True)
        if options.corpus is None:
            return
        first, again = [], []
        for number in range(options.pretrain_rounds):
            shutil.rmtree(Path(folder) / "cache", ignore_errors=True)
            for name, times in (("first", first), ("again", again)):
                times.append(started(pretrain(options, Path(folder) / f"{name}-{number}"), environment))
        title = f"electra pretrain, {options.model}, until one step is saved"
        print(describe(f"{title}: first start", first))
        print(describe(f"{title}: second start", again))
        ratio = spread([one.wall / other.wall for one, other in zip(first, again, strict=True)])
        print(f"first / second start, wall time: median {ratio.median:.2f}, n {ratio.n}")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Times starts of the package.")
    parser.add_argument("--rounds", type=int, default=7, help="of the quick commands")
    parser.add_argument("--pretrain_rounds", type=int, default=3)
    parser.add_argument("--corpus", help="text for `electra pretrain`; without it pre-training is not started")
    parser.add_argument("--vocab_file", help="BERT's vocab.txt of the model's size")
    parser.add_argument("--model", default="small")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--gin", action="append", default=[], metavar="NAME=VALUE", help="another binding; repeatable")
    return parser.parse_args()


def pretrain(options: argparse.Namespace, model_dir: Path) -> list[str]:
    """Return the command line of `electra pretrain` for one step."""
    bindings = {
        "MODEL_DIR": repr(str(model_dir)),
        "CORPUS": repr(options.corpus),
        "VOCAB_FILE": repr(options.vocab_file),
        "BATCH_SIZE": options.batch_size,
        "TRAIN_STEPS": 1,
        "EVALUATION_EXAMPLES": options.batch_size,
    }
    files = (f"gin/models/{options.model}.gin", "gin/runs/pretrain.gin")
    return [
        *(sys.executable, "-m", "electra_jax", "pretrain"),
        *(f"--gin_file={file}" for file in files),
        *(f"--gin.{name}={value}" for name, value in bindings.items()),
        *(f"--gin.{binding}" for binding in options.gin),
    ]


def started(command: list[str], environment: dict[str, str]) -> Elapsed:
    """Run a command to its end and return its times; its output is shown only if it fails."""

    def work() -> None:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"bench: {' '.join(command)} failed:\n{done.stdout}{done.stderr}")

    return stopwatch(work)


def describe(name: str, elapsed: list[Elapsed]) -> str:
    """Return a line with the statistics of wall time and CPU time."""
    return f"{name}: {in_words([time.wall for time in elapsed])}; CPU time {in_words([time.cpu for time in elapsed])}"


if __name__ == "__main__":
    main()
