"""Fine-tune the same weights by `electra finetune` and by a plain loop with transformers, and print both scores.

    python -m bench.beside_transformers ours --weights=BERT --data=glue --runs=RUNS --task=mrpc --seed=0
    python -m bench.beside_transformers transformers --weights=BERT --data=glue --runs=RUNS --task=mrpc --seed=0
    python -m bench.beside_transformers table --runs=RUNS

BERT is a directory that transformers saved. Both sides use `RECIPE`: the same optimizer, schedule, batch size, epochs,
longest row and dropout, one learning rate for all layers, and the head of `ElectraForSequenceClassification`. The order
of the examples, the padding of a batch and the random numbers differ. The last checkpoint is scored on GLUE's dev
split. The transformers side needs PyTorch and transformers but no other part of this project, so each side may use a
Python of its own.
"""

import argparse
import csv
import importlib.util
import json
import random
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

RECIPE = {
    "EPOCHS": 2,
    "BATCH_SIZE": 32,
    "LEARNING_RATE": 1e-4,
    "WARMUP_FRACTION": 0.1,
    "WEIGHT_DECAY": 0.01,
    "DROPOUT": 0.1,
    "MAX_SEQ_LENGTH": 64,
}
ADAM = {"betas": (0.9, 0.999), "eps": 1e-6}
CLIP_NORM = 1.0
LABELS = {"0": 0, "1": 1, "not_entailment": 0, "entailment": 1}
SIDES = ("ours", "transformers")


class Source(NamedTuple):
    """Name the folder of a task, and the columns of its texts and its label."""

    folder: str
    texts: tuple[str, ...]
    label: str


SOURCES = {
    "mrpc": Source("MRPC", ("#1 String", "#2 String"), "Quality"),
    "rte": Source("RTE", ("sentence1", "sentence2"), "label"),
    "sst2": Source("SST-2", ("sentence",), "label"),
}


def main() -> int:
    """Fine-tune on one side and write the scores, or print the table of all scores; return the exit code."""
    options = parse_arguments()
    if options.side == "table":
        print_table(options.runs)
        return 0
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if options.side == "transformers" and missing:
        print(
            f"beside_transformers: {' and '.join(missing)} is not installed: install the extra bench", file=sys.stderr
        )
        return 2
    options.runs.mkdir(parents=True, exist_ok=True)
    files = {split: part_of(options, split) for split in ("train", "dev")}
    scores = (ours if options.side == "ours" else theirs)(options, files)
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = sum(use.ru_utime + use.ru_stime for use in uses)
    record = {"task": options.task, "side": options.side, "rows": options.rows, "scores": scores, "cpu": cpu}
    path = options.runs / f"{options.task}-{options.side}-{options.seed}.json"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    print(path, record)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Fine-tunes by our command and by a loop of transformers.")
    parser.add_argument("side", choices=[*SIDES, "table"])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the scores, and of our runs")
    parser.add_argument("--weights", type=Path, help="a BERT, as transformers saves it")
    parser.add_argument("--data", type=Path, help="folder of GLUE's folders")
    parser.add_argument("--task", choices=SOURCES, default="mrpc")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, help="train on so many rows, the first ones, and not on all")
    options = parser.parse_args()
    if options.side != "table" and not (options.weights and options.data):
        parser.error("--weights and --data are needed")
    return options


def part_of(options: argparse.Namespace, split: str) -> Path:
    """Write the rows of a split that both sides use to a file, and return its path."""
    lines = (options.data / SOURCES[options.task].folder / f"{split}.tsv").read_text(encoding="utf-8-sig").splitlines()
    rows = options.rows if split == "train" else None
    path = options.runs / f"{options.task}-{rows or 'all'}-{split}.tsv"
    path.write_text("\n".join(lines[: rows and rows + 1]) + "\n", encoding="utf-8")
    return path


def ours(options: argparse.Namespace, files: dict[str, Path]) -> dict[str, float]:
    """Run `electra import`, unless that was done, and `electra finetune`; return the scores."""
    weights, model_dir = options.runs / "weights", options.runs / f"{options.task}-{options.seed}"
    if not weights.exists():
        electra("import", str(options.weights), str(weights))
    bindings = RECIPE | {
        "TASK": options.task,
        "TRAIN_FILE": str(files["train"]),
        "DEV_FILE": str(files["dev"]),
        "INIT_FROM": str(weights),
        "MODEL_DIR": str(model_dir),
        "SEED": options.seed,
        "LAYERWISE_LR_DECAY": 1.0,
        "DOUBLE_UNORDERED": False,
        # Few lengths mean few programs to compile; the model is not evaluated before the last step.
        "BUCKETS": (16, 32, 48, RECIPE["MAX_SEQ_LENGTH"]),
        "EVALUATE_EVERY": 10**6,
    }
    configuration = ["--gin_file=gin/runs/finetune.gin", "--gin_file=gin/optimizers/adamw.gin"]
    electra("finetune", *configuration, *(f"--gin.{name}={value!r}" for name, value in bindings.items()))
    (seed,) = json.loads((model_dir / "results.json").read_text(encoding="utf-8"))["seeds"]
    return seed["metrics"]


def electra(*arguments: str) -> None:
    """Run an `electra` command in a separate process."""
    subprocess.run([sys.executable, "-m", "electra_jax", *arguments], check=True)


def theirs(options: argparse.Namespace, files: dict[str, Path]) -> dict[str, float]:
    """Train in the customary way with PyTorch and transformers, and return the scores."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel, ElectraConfig, ElectraForSequenceClassification

    torch.manual_seed(options.seed)
    order = random.Random(options.seed)
    sizes = BertConfig.from_pretrained(options.weights).to_dict()
    config = ElectraConfig(
        **{name: value for name, value in sizes.items() if name not in ("model_type", "architectures")}
        | {"embedding_size": sizes["hidden_size"], "num_labels": 2}
        | {f"{part}_dropout_prob": RECIPE["DROPOUT"] for part in ("hidden", "attention_probs")}
    )
    model = ElectraForSequenceClassification(config)
    # ELECTRA's encoder is the same as BERT's if embeddings are as wide as hidden states.
    model.electra.load_state_dict(BertModel.from_pretrained(options.weights, add_pooling_layer=False).state_dict())
    tokenizer = AutoTokenizer.from_pretrained(options.weights)
    train, dev = (read_examples(files[split], SOURCES[options.task]) for split in ("train", "dev"))

    def logits_of(examples: Sequence[tuple[tuple[str, ...], int]]) -> "torch.Tensor":
        columns = [list(column) for column in zip(*(texts for texts, _ in examples), strict=True)]
        limits = {"truncation": True, "max_length": RECIPE["MAX_SEQ_LENGTH"]}
        return model(**tokenizer(*columns, padding=True, return_tensors="pt", **limits)).logits

    size = int(RECIPE["BATCH_SIZE"])
    num_steps = int(RECIPE["EPOCHS"]) * -(-len(train) // size)
    optimizer, schedule = make_optimizer(model, num_steps)
    model.train()
    for _ in range(int(RECIPE["EPOCHS"])):
        order.shuffle(train)
        for start in range(0, len(train), size):
            batch = train[start : start + size]
            loss = torch.nn.functional.cross_entropy(logits_of(batch), torch.tensor([label for _, label in batch]))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        batches = [dev[start : start + size] for start in range(0, len(dev), size)]
        predicted = [label for batch in batches for label in logits_of(batch).argmax(dim=-1).tolist()]
    return scores_of([label for _, label in dev], predicted)


def read_examples(path: Path, source: Source) -> list[tuple[tuple[str, ...], int]]:
    """Return the texts and the label of each row."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [(tuple(row[name] for name in source.texts), LABELS[row[source.label]]) for row in rows]


def make_optimizer(model: "torch.nn.Module", num_steps: int) -> tuple["torch.optim.Optimizer", Any]:
    """Return AdamW without weight decay of biases and layer norms, and its schedule."""
    import torch

    decayed, others = [], []
    for name, parameter in model.named_parameters():
        (others if name.endswith("bias") or "LayerNorm" in name else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": RECIPE["WEIGHT_DECAY"]}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RECIPE["LEARNING_RATE"], **ADAM)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share_of_rate(step, num_steps))


def share_of_rate(step: int, num_steps: int) -> float:
    """Return the factor of the learning rate at an update, counted from 0: warm-up times decay, as in ELECTRA."""
    return (1 - step / num_steps) * min(1.0, step / (RECIPE["WARMUP_FRACTION"] * num_steps))


def scores_of(gold: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Return the accuracy and the F1 of class 1, in per cent."""
    pairs = list(zip(gold, predicted, strict=True))
    right, hits = sum(one == other for one, other in pairs), pairs.count((1, 1))
    ones = list(gold).count(1) + list(predicted).count(1)
    return {"accuracy": 100 * right / len(pairs), "f1": 200 * hits / ones if ones else 0.0}


def print_table(runs: Path) -> None:
    """Print a table of the scores of both sides, in Markdown."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(runs.glob("*-*-*.json"))]
    print("| task | rows | score | side | seeds | mean | deviation | CPU time, s |\n|---|---|---|---|---|---|---|---|")
    for task in SOURCES:
        for metric in ("accuracy", "f1") if task == "mrpc" else ("accuracy",):
            for side in SIDES:
                found = [record for record in records if (record["task"], record["side"]) == (task, side)]
                if found:
                    print(
                        f"| {task} | {found[0]['rows'] or 'all'} | {metric} | {side} | {statistics_of(found, metric)} |"
                    )


def statistics_of(records: Sequence[dict[str, Any]], metric: str) -> str:
    """Return the table cells of a side: all scores, their mean and standard deviation, and the median CPU time."""
    scores = [record["scores"][metric] for record in records]
    deviation = f"{statistics.stdev(scores):.1f}" if len(scores) > 1 else "-"
    listed = ", ".join(f"{score:.1f}" for score in scores)
    cpu = statistics.median(record["cpu"] for record in records)
    return f"{listed} | {statistics.mean(scores):.1f} | {deviation} | {cpu:.0f}"


if __name__ == "__main__":
    sys.exit(main())
