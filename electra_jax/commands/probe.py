"""`electra probe`: scores linear classifiers on the hidden states of every layer of an encoder."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.table import Table

from electra_jax.checkpoints import model_dir as loading
from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.checkpoints.run_record import read_run_record, write_run_record
from electra_jax.checkpoints.warm_start import encoder_for_finetuning
from electra_jax.config import gin_files
from electra_jax.config.probing import ProbeRun
from electra_jax.distributed.owner import owning_model_dir
from electra_jax.distributed.processes import print_on_leader
from electra_jax.errors import UserError
from electra_jax.files import local, replace_file
from electra_jax.finetuning import probes
from electra_jax.finetuning.results import summary
from electra_jax.finetuning.start import Origin, find_encoder
from electra_jax.json_files import json_text
from electra_jax.monitoring.console import PlainConsole
from electra_jax.run_directory import CHECKPOINTS, RESULTS
from electra_jax.runtime import keep_compilations
from electra_jax.tasks.tagging.probing import SPLITS, Asked, ask, check_asks, draw_of, probe_sources
from electra_jax.tasks.tagging.sentences import TaggedSentence


@owning_model_dir("electra probe")
def run(configuration: ProbeRun) -> None:
    """Probe an encoder with each seed, print the scores of every layer, and write results.json.

    Raises:
        UserError: if there is no encoder or no sentences, or MODEL_DIR holds a run of another kind.
    """
    directory = local(configuration.model_dir, "the MODEL_DIR of a probe")
    record = read_run_record(directory)
    if (directory / CHECKPOINTS).exists() or (record and "probe" not in record):
        raise UserError(f"{directory} holds a run of another kind: use another MODEL_DIR")
    keep_compilations()
    sources = probe_sources(configuration.task)
    begun = find_encoder(configuration)
    task = configuration.task.task
    sentences = {split: sources.read(task, split).examples for split in SPLITS}
    model = None if configuration.init_from is None else loading.load(configuration.init_from)
    seeds = [probe_seed(configuration, begun, model, sentences, seed) for seed in configuration.seeds]
    results = {
        "task": task,
        "kind": "probe",
        "main_metric": "accuracy",
        # Settings are chosen by the dev score; choosing by the reported test score would bias it.
        "tuning_metric": "dev_accuracy",
        "split": "test",
        "init_from": configuration.init_from,
        "num_examples": {split: len(found) for split, found in sentences.items()},
        "seeds": seeds,
        "summary": summary(seeds),
    }
    directory.mkdir(parents=True, exist_ok=True)
    write_run_record(directory, gin_files.resolved(), {"probe": task})
    path = directory / RESULTS
    replace_file(path, json_text(results), durable=True)
    show(results)
    print_on_leader(f"results: {path}")


def probe_seed(
    configuration: ProbeRun,
    begun: Origin,
    model: Loaded | None,
    sentences: Mapping[str, Sequence[TaggedSentence]],
    seed: int,
) -> dict[str, Any]:
    """Return the scores of one probe: those of every layer, and those of the best layer as its metrics.

    Args:
        configuration: the probe's settings.
        begun: the encoder and its vocabulary.
        model: the weights; None for random weights drawn from the seed. An encoder is read as it was trained.
        sentences: the sentences of each split.
        seed: determines the training sentences, the masks and random weights.
    """
    asked = {
        split: ask_split(configuration, begun, split, found, draw_of(seed, split)) for split, found in sentences.items()
    }
    # The fits take minutes, so the counts are printed before they start.
    asks = ", ".join(f"{len(one.answers):,} of {split}" for split, one in asked.items())
    print_on_leader(f"seed {seed}: answers at {begun.encoder.num_hidden_layers + 1} layers: {asks}")
    if model is None:
        params = probes.init_encoder(jax.random.key(seed), begun.encoder)
    else:
        _, params = encoder_for_finetuning(model)
    scores = probes.probe_layers(
        params,
        begun.encoder,
        asked,
        left_to_right=model is not None and model.description.reads_left_to_right,
        penalty=configuration.penalty,
        max_iterations=configuration.max_iterations,
        batch_size=configuration.batch_size,
    )
    best = probes.best_layer(scores)
    return {
        "seed": seed,
        "metrics": {"accuracy": best.test, "dev_accuracy": best.dev},
        "failed": None,
        "best_layer": best.layer,
        "layers": [score._asdict() for score in scores],
        "num_asked": {split: len(one.answers) for split, one in asked.items()},
        "num_cut": {split: one.num_cut for split, one in asked.items()},
    }


def ask_split(
    configuration: ProbeRun,
    begun: Origin,
    split: str,
    sentences: Sequence[TaggedSentence],
    draw: np.random.Generator,
) -> Asked:
    """Return the probe's questions on a split; of the training split, only the configured number of sentences is drawn.

    Raises:
        UserError: if there is nothing to ask.
    """
    task, number = configuration.task, configuration.num_train_sentences
    if split == "train" and number < len(sentences):
        sentences = [sentences[one] for one in np.sort(draw.choice(len(sentences), number, replace=False))]
    asked = ask(
        task.task,
        sentences,
        begun.vocabulary,
        length=min(task.row_length, begun.encoder.max_position_embeddings),
        mask_prob=configuration.mask_prob,
        draw=draw,
    )
    check_asks(asked, task.task, split, len(sentences))
    return asked


def show(results: Mapping[str, Any]) -> None:
    """Print the mean scores of every layer as a table, and the scores of each seed's best layer."""
    table = Table("layer", "dev", "test", title=f"{results['task']}, a linear map at each layer, per cent")
    for each in zip(*(seed["layers"] for seed in results["seeds"]), strict=True):
        means = (statistics.fmean(layer[split] for layer in each) for split in ("dev", "test"))
        table.add_row(str(each[0]["layer"]), *(f"{mean:.2f}" for mean in means))
    PlainConsole().print(table)
    for seed in results["seeds"]:
        print_on_leader(
            f"seed {seed['seed']}: layer {seed['best_layer']} is best on dev, and finds "
            f"{seed['metrics']['accuracy']:.2f} % of {seed['num_asked']['test']} on test"
        )
