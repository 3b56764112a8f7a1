"""Make the items of a comparison's baselines: random weights, and a trigram model of the same text."""

import dataclasses
from collections.abc import Sequence

from electra_jax.compare.compared_item import COMPARED, Configured, WorkItem, configured, directory_of, flags_of
from electra_jax.compare.task_items import folds_of
from electra_jax.config.comparison import PAIRS, RANDOM, TRIGRAM, ComparisonRun
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.probing import ProbeRun


def random_weights(run: ComparisonRun, tasks: Sequence[Configured], folders: Sequence[str]) -> list[WorkItem]:
    """Return the fine-tunings of random weights, of the sizes that PRETRAINING binds.

    There are none on minimal pairs, which an encoder without a head cannot score.
    """
    encoder = shared_pretraining(run, folders).encoder
    sizes = {f"EncoderConfig.{field.name}": repr(getattr(encoder, field.name)) for field in dataclasses.fields(encoder)}
    given = [f"encoder.{name}={value}" for name, value in sizes.items()]
    given += [f"VOCAB_FILE={run.vocab_file!r}", "INIT_FROM=None"]
    return [
        WorkItem(
            name=(name := f"{RANDOM}/{task.name}"),
            variant=RANDOM,
            role=COMPARED,
            seed=run.seed,
            fraction=0.0,
            task=task.name,
            folds=folds_of(task),
            arguments=(*task.arguments, *flags_of([*given, f"MODEL_DIR={directory_of(run, name)!r}"])),
            settings={**task.settings, **sizes, "VOCAB_FILE": repr(run.vocab_file)},
            steps=0,
            flops=0.0,
            needs=None,
            point=None,
        )
        for task in tasks
        if not task.name.startswith(PAIRS)
    ]


def words_probe(tasks: Sequence[Configured]) -> Configured | None:
    """Return the first task that is the probe "words"; None if there is none."""
    return next((one for one in tasks if isinstance(one.built, ProbeRun) and one.built.task.task == "words"), None)


def trigram_model(run: ComparisonRun, tasks: Sequence[Configured], folders: Sequence[str]) -> list[WorkItem]:
    """Return a trigram model of PRETRAINING's text, scored on what `words_probe` asks of an encoder.

    There is none without that probe, or if the text is a stream, which cannot be counted.
    """
    probe, shared = words_probe(tasks), shared_pretraining(run, folders)
    if probe is None or shared.cache.source.corpus is None:
        return []
    # The length of the rows in which the probe masks words.
    length = min(probe.built.task.row_length, shared.encoder.max_position_embeddings)
    task = dataclasses.replace(probe.built.task, length=length)
    given = {"CORPUS": run.corpus, "VOCAB_FILE": run.vocab_file, "NUM_SEEDS": run.num_seeds, "SEED": run.seed}
    given["probing.TrigramRun.mask_prob"] = probe.built.mask_prob
    for module, part in (
        ("run_config", shared.cache),
        ("run_config", shared.cache.source),
        ("task_options", task),
    ):
        fields = (field.name for field in dataclasses.fields(part) if field.name != "source" or part is task)
        given |= {f"{module}.{type(part).__name__}.{name}": getattr(part, name) for name in fields}
    name = f"{TRIGRAM}/{probe.name}"
    bindings = [*(f"{setting}={value!r}" for setting, value in given.items()), f"MODEL_DIR={directory_of(run, name)!r}"]
    made = configured(TRIGRAM, "trigram", ["gin/runs/trigram.gin"], bindings, folders)
    return [
        WorkItem(
            name=name,
            variant=TRIGRAM,
            role=COMPARED,
            seed=run.seed,
            fraction=0.0,
            task=probe.name,
            folds=1,
            arguments=made.arguments,
            settings=made.settings,
            steps=0,
            flops=0.0,
            needs=None,
            point=None,
        )
    ]


def shared_pretraining(run: ComparisonRun, folders: Sequence[str]) -> PretrainingRun:
    """Return the configuration that PRETRAINING binds for the first seed, without a variant's overrides."""
    shared = run.shared_pretraining
    own = [f"CORPUS={run.corpus!r}", f"VOCAB_FILE={run.vocab_file!r}", f"SEED={run.seed}"]
    own += [*shared.bindings, f"MODEL_DIR={run.model_dir!r}"]
    return configured("PRETRAINING", "pretrain", shared.files, own, folders).built
