"""Time prediction and the forward pass alone: python -m bench.predict --model=small --batch_size=32

`electra_jax.load(...)(texts)` tokenises, pads, computes, and converts the outputs to answers. The forward pass computes
the same batches, which are already on the device. The two take turns. Needs the tokeniser, but not TensorFlow.
"""

import argparse
import functools

import jax
import numpy as np

from bench import models
from bench.finetune_step import HEAD
from bench.glue_lengths import DECILES, LONGEST, lengths
from bench.pretrain_step import prepare
from bench.timing import in_words, machine, spread, stopwatch
from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.checkpoints.model_record import Description, abstract_params
from electra_jax.data.buckets import in_order_of_length
from electra_jax.inference.api import Model
from electra_jax.inference.network import outputs
from electra_jax.model.types import Tokens
from electra_jax.tasks.vocabulary import Vocabulary

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def main() -> None:
    """Print the times of prediction and of the forward pass, and their ratio."""
    options = parse_arguments()
    prepare(1)
    print(machine(["jax", "jaxlib", "flax", "tokenizers", "numpy"]))
    model, texts = random_model(options.model, options.seed), texts_of(options)
    ids = [[model.pieces.cls_id, *row, model.pieces.sep_id] for row in model.pieces.encode_batch(texts)]
    rows = [{"input_ids": np.array(row, np.int32), "token_type_ids": np.zeros(len(row), np.int32)} for row in ids]
    batches = [
        Tokens(*(jax.device_put(batch[name]) for name in ("input_ids", "token_type_ids", "attention_mask")))
        for _, batch in in_order_of_length(rows, batch_size=options.batch_size, buckets=model.lengths)
    ]
    run, params = jax.jit(functools.partial(outputs, model.description)), jax.device_put(model.params)

    def predict() -> None:
        model(texts, batch_size=options.batch_size)

    def forward_pass() -> None:
        with jax.default_matmul_precision("highest"):
            jax.block_until_ready([run(params, tokens) for tokens in batches])

    predict()
    forward_pass()
    print(f"{options.model}, {len(texts)} texts as long as those of {options.task}, batch {options.batch_size}")
    times = [(stopwatch(predict), stopwatch(forward_pass)) for _ in range(options.rounds)]
    for place, name in enumerate(("predict", "forward pass alone")):
        wall = [both[place].wall for both in times]
        print(f"{name}: {in_words(wall)}; {len(texts) / spread(wall).median:,.1f} texts/s")
    ratios = spread([one.wall / other.wall for one, other in times])
    print(
        f"predict / forward pass alone: median {ratios.median:.3f}, quartiles {ratios.lower_quartile:.3f} to "
        f"{ratios.upper_quartile:.3f}, n {ratios.n}"
    )


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Times prediction beside the forward pass alone.")
    parser.add_argument("--model", choices=models.SIZES, default="small")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--task", choices=DECILES, default="stsb", help="texts are as long as those of this task")
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def random_model(size: str, seed: int) -> Model:
    """Return a classifier with random weights, whose vocabulary consists of numbers."""
    encoder = models.recipe(size, dtype="float32").model.discriminator_config
    labels = ("no", "yes")
    task = {
        "task": "this model",
        "kind": "classification",
        "target": list(labels),
        "pair": False,
        "metrics": [],
        "rules": "standard",
        "length": LONGEST,
    }
    description = Description(
        kind="sequence_classification",
        discriminator=encoder,
        generator=None,
        generator_embeddings=False,
        head=HEAD,
        labels=labels,
        facts={"task": task},
    )
    draw = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: draw.normal(0.0, 0.02, leaf.shape).astype(np.float32), abstract_params(description)
    )
    tokens = [*SPECIAL, *(str(number) for number in range(encoder.vocab_size - len(SPECIAL)))]
    return Model(Loaded(description, params, Vocabulary(tokens, lowercase=True, strip_accents=True), step=0))


def texts_of(options: argparse.Namespace) -> list[str]:
    """Return texts of numbers, as long as the rows of the task."""
    draw = np.random.default_rng(options.seed)
    most = models.recipe(options.model, dtype="float32").vocab_size - len(SPECIAL)
    return [
        " ".join(map(str, draw.integers(0, most, max(1, length - 2))))
        for length in lengths(options.task, options.texts, options.seed)
    ]


if __name__ == "__main__":
    main()
