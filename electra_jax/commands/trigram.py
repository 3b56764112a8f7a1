"""`electra trigram`: scores how often a trigram model of a corpus predicts the masked words of a probe."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from electra_jax.checkpoints.run_record import read_run_record, write_run_record
from electra_jax.config import gin_files
from electra_jax.config.data import cache_path
from electra_jax.config.probing import TrigramRun
from electra_jax.data import trigrams
from electra_jax.data.blocks import WORD_MARK, TokenBlocks
from electra_jax.distributed.owner import owning_model_dir
from electra_jax.distributed.processes import print_on_leader
from electra_jax.errors import UserError
from electra_jax.files import local, replace_file
from electra_jax.finetuning.results import summary
from electra_jax.json_files import json_text
from electra_jax.run_directory import CHECKPOINTS, RESULTS
from electra_jax.tasks.pretraining.cache_worker import largest_size
from electra_jax.tasks.pretraining.cached_blocks import blocks_of_cache
from electra_jax.tasks.tagging.probing import Asked, ask, check_asks, draw_of, probe_sources
from electra_jax.tasks.tagging.sentences import TaggedSentence
from electra_jax.tasks.tokenizer_file import load_tokenizer
from electra_jax.tasks.vocabulary import Vocabulary


@owning_model_dir("electra trigram")
def run(configuration: TrigramRun) -> None:
    """Score the model with the masks of each seed, print the scores, and write results.json.

    Raises:
        UserError: if there is no corpus or there are no sentences, or MODEL_DIR holds a run of another kind.
    """
    directory = local(configuration.model_dir, "the MODEL_DIR of a trigram model")
    record = read_run_record(directory)
    if (directory / CHECKPOINTS).exists() or (record and "trigram" not in record):
        raise UserError(f"{directory} holds a run of another kind: use another MODEL_DIR")
    vocabulary = load_tokenizer(configuration.cache.vocab_file, lowercase=configuration.cache.lowercase)
    sentences = probe_sources(configuration.task).read(configuration.task.task, "test").examples
    texts = training_text(configuration, vocabulary)
    num_tokens = sum(len(text.tokens) for text in texts)
    print_on_leader(f"a trigram model of {num_tokens:,} tokens")
    seeds = [score_seed(configuration, texts, vocabulary, sentences, seed) for seed in configuration.seeds]
    results = {
        "task": configuration.task.task,
        "kind": "trigram",
        "main_metric": "accuracy",
        "split": "test",
        "num_examples": {"test": len(sentences)},
        "num_tokens": num_tokens,
        "seeds": seeds,
        "summary": summary(seeds),
    }
    directory.mkdir(parents=True, exist_ok=True)
    write_run_record(directory, gin_files.resolved(), {"trigram": configuration.task.task})
    path = directory / RESULTS
    replace_file(path, json_text(results), durable=True)
    for seed in seeds:
        print_on_leader(
            f"seed {seed['seed']}: a trigram model predicts {seed['metrics']['accuracy']:.2f} % of "
            f"{seed['num_asked']['test']} masked words on test"
        )
    print_on_leader(f"results: {path}")


def training_text(configuration: TrigramRun, vocabulary: Vocabulary) -> list[TokenBlocks]:
    """Return the training split of each corpus's cache, which is built first if needed; of a mixture, each part once.

    Raises:
        UserError: as `cache_path` and `blocks_of_cache`.
    """
    cache = configuration.cache
    texts = []
    for source, _ in cache.source.parts:
        part = dataclasses.replace(cache, source=source)
        path = cache_path(part, vocabulary, max_bytes=cache.max_auto_cache_bytes)
        size = largest_size(vocabulary.vocab_size, word_marks=cache.word_marks)
        texts.append(blocks_of_cache(path, "train", vocab_size=size, cache_dir=cache.cache_dir))
    return texts


def score_seed(
    configuration: TrigramRun,
    texts: Sequence[TokenBlocks],
    vocabulary: Vocabulary,
    sentences: Sequence[TaggedSentence],
    seed: int,
) -> dict[str, Any]:
    """Return the model's score on the words of the test split that the probe masks with this seed."""
    task = configuration.task
    asked = ask(
        task.task,
        sentences,
        vocabulary,
        length=task.row_length,
        mask_prob=configuration.mask_prob,
        draw=draw_of(seed, "test"),
    )
    check_asks(asked, task.task, "test", len(sentences))
    special = vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id, vocabulary.pad_id
    found = trigrams.predict(
        texts,
        contexts_of(asked, vocabulary.mask_id),
        vocab_size=vocabulary.vocab_size,
        never=special,
        word_mark=WORD_MARK if configuration.cache.word_marks else None,
    )
    right = [vocabulary.tokens[token] == answer for token, answer in zip(found, asked.answers, strict=True)]
    return {
        "seed": seed,
        "metrics": {"accuracy": 100 * float(np.mean(right))},
        "failed": None,
        "num_asked": {"test": len(asked.answers)},
        "num_cut": {"test": asked.num_cut},
    }


def contexts_of(asked: Asked, mask_id: int) -> np.ndarray:
    """Return the two tokens before each masked one, the nearer last, int64 [x, 2]; `trigrams.NONE` for a masked token.

    They are taken from the masked text, which is what an encoder reads.
    """
    contexts = []
    for row, places in zip(asked.rows, asked.positions, strict=True):
        # No token precedes [CLS].
        ids_L = np.concatenate([[trigrams.NONE], row["input_ids"]]).astype(np.int64)
        ids_L[ids_L == mask_id] = trigrams.NONE
        contexts.append(np.stack([ids_L[places - 1], ids_L[places]], axis=1))
    return np.concatenate(contexts)
