"""Resolve what fine-tuning starts from: the encoder's sizes, its vocabulary, and its weights."""

import dataclasses
import logging
from pathlib import Path
from typing import Any, NamedTuple

from electra_jax.checkpoints import model_dir, warm_start
from electra_jax.checkpoints.checksum import params_sha256
from electra_jax.checkpoints.model_record import check_finds_replaced
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.config.probing import ProbeRun
from electra_jax.distributed.processes import print_on_leader
from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.model.config import MAX_UNROLLED_LAYERS, EncoderConfig
from electra_jax.model.types import PyTree
from electra_jax.tasks.text.prompts import PROMPT
from electra_jax.tasks.tokenizer_file import load_tokenizer
from electra_jax.tasks.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

# Sizes in which a checkpoint's encoder must agree with a model's Gin file, if one is given too.
SIZES = (
    "vocab_size",
    "hidden_size",
    "embedding_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)


class Origin(NamedTuple):
    """Hold what fine-tuning starts from.

    Attributes:
        encoder: the configuration of the encoder, as this run trains it.
        vocabulary: the encoder's vocabulary.
        pretraining_length: length of pre-training's rows; None if unknown, as for an import or random weights.
        source: the fact about the imported model that the encoder comes from, see `Description.source`.
        weights_hash: checksum of INIT_FROM's parameters; "" for random weights. A run is not resumed if it differs.
    """

    encoder: EncoderConfig
    vocabulary: Vocabulary
    pretraining_length: int | None
    source: dict[str, Any]
    weights_hash: str

    @property
    def vocabulary_hash(self) -> str:
        """Hash of the entries and the casing: a run is not resumed if INIT_FROM has another vocabulary by now."""
        return self.vocabulary.fingerprint


def resolve_init(run: FinetuningRun) -> Origin:
    """Return the encoder as a run of fine-tuning trains it, and its vocabulary: see `find_encoder`.

    Raises:
        UserError: as `find_encoder`, or if rows are longer than the model can read, or prompts have no head.
    """
    if run.task.task == PROMPT and run.init_from is not None:
        check_finds_replaced(model_dir.load(run.init_from).description, f"INIT_FROM {run.init_from}")
    found = find_encoder(run)
    most = found.encoder.max_position_embeddings
    if run.task.row_length > most:
        raise UserError(
            f"rows of {run.task.row_length} tokens are longer than the model's {most} "
            f"positions: set --gin.MAX_SEQ_LENGTH={most} or less"
        )
    encoder = dataclasses.replace(
        found.encoder,
        hidden_dropout_prob=run.dropout_prob,
        attention_probs_dropout_prob=run.attention_dropout_prob,
        dropout_prng=run.dropout_prng,
        dtype=run.dtype,
        attention=run.attention,
        remat_policy=run.remat_policy,
        scan_unroll=layers_unrolled(run, found.encoder),
    )
    return found._replace(encoder=encoder)


def layers_unrolled(run: FinetuningRun, encoder: EncoderConfig) -> int:
    """Return the layers per iteration of the loop over layers: SCAN_UNROLL, or the value that pre-training uses.

    Args:
        run: the run.
        encoder: the encoder of random weights, whose Gin file sets the value, or of a checkpoint, which has no record.
    """
    layers = encoder.num_hidden_layers
    if run.scan_unroll is not None:
        return min(run.scan_unroll, layers)
    if run.init_from is None:
        return encoder.scan_unroll
    return layers if layers <= MAX_UNROLLED_LAYERS and run.remat_policy == "none" else 1


def find_encoder(run: FinetuningRun | ProbeRun) -> Origin:
    """Return the encoder and the vocabulary of INIT_FROM, or of a model's Gin file and TOKENIZER.

    Raises:
        UserError: if INIT_FROM is not a model directory or has no encoder to fine-tune; if random weights have no sizes
            or no vocabulary; or if a vocabulary, casing or size disagrees.
    """
    given = bound_encoder(run)
    if run.init_from is None:
        if given is None or run.vocab_file is None:
            raise UserError(
                "INIT_FROM is None: random weights need sizes and a vocabulary, as in "
                "--gin_file=gin/models/small.gin --gin.TOKENIZER='\"vocab.txt\"'; or name a model directory"
            )
        encoder, vocabulary = given, load_tokenizer(run.vocab_file, lowercase=run.lowercase)
        if len(vocabulary.tokens) != encoder.vocab_size:
            raise UserError(
                f"{run.vocab_file} has {len(vocabulary.tokens)} entries and the model's Gin file says VOCAB_SIZE = "
                f"{encoder.vocab_size}: set --gin.VOCAB_SIZE={len(vocabulary.tokens)}"
            )
        return Origin(encoder, vocabulary, None, {}, weights_hash="")
    found = init_from_checkpoint(run.init_from, run.vocab_file, run.lowercase)
    different = [
        f"{name} {getattr(found.encoder, name)} there, {getattr(given, name)} here"
        for name in SIZES
        if given is not None and getattr(found.encoder, name) != getattr(given, name)
    ]
    if different:
        raise UserError(
            f"INIT_FROM {run.init_from} is of another size than the model's Gin file: {'; '.join(different)}; "
            "give no model file, sizes come from the checkpoint"
        )
    return found


def bound_encoder(run: FinetuningRun | ProbeRun) -> EncoderConfig | None:
    """Return the encoder that a model's Gin file binds; None without such a file."""
    try:
        return run.encoder()
    except TypeError:
        # Gin raises TypeError if an argument has no binding.
        return None


def init_from_checkpoint(init_from: str, vocab_file: str | None, lowercase: bool | None) -> Origin:
    """Return the encoder of a model directory, and its vocabulary.

    Args:
        init_from: the model directory.
        vocab_file: the vocabulary, if the directory has none; otherwise compared with the directory's.
        lowercase: the casing of `vocab_file`; otherwise compared with the directory's.

    Raises:
        UserError: if the directory has no encoder to fine-tune or no vocabulary, or what is given disagrees with it.
    """
    model = model_dir.load(init_from)
    encoder, _ = warm_start.encoder_for_finetuning(model)
    if encoder is None:
        raise UserError(f"INIT_FROM {init_from} holds a generator only: fine-tuning takes a discriminator's encoder")
    found = model.vocabulary
    if found is None and vocab_file is None:
        raise UserError(f"{init_from} has no vocabulary: name the one that it was trained with by TOKENIZER")
    given = None if vocab_file is None else load_tokenizer(vocab_file, lowercase=lowercase)
    if found is None and given is not None:
        model_dir.check_trained_with(path_of(init_from), given, str(vocab_file))
    if given is not None and found is not None and not same_ids(given, found):
        raise UserError(
            f"TOKENIZER {vocab_file} is not the vocabulary that {init_from} was trained with "
            f"({len(given.tokens)} entries against {len(found.tokens)}, or others): leave TOKENIZER out"
        )
    wanted = lowercase if given is None else given.lowercase
    if found is not None and found.lowercase is None and lowercase is not None:
        raise UserError(f"LOWERCASE is for a vocab.txt, and {init_from} has a tokenizer.json: leave LOWERCASE out")
    if found is not None and wanted is not None and wanted != found.lowercase:
        raise UserError(
            f"{init_from} was trained on {'lower-cased' if found.lowercase else 'cased'} text, and "
            f"{'LOWERCASE' if given is None else vocab_file} says otherwise: leave it out"
        )
    vocabulary = found or given
    if len(vocabulary.tokens) != encoder.vocab_size:
        raise UserError(
            f"TOKENIZER {vocab_file} has {len(vocabulary.tokens)} entries and the embedding table of {init_from} "
            f"{encoder.vocab_size} rows: this is another model's vocabulary"
        )
    facts = model.description.facts
    return Origin(
        encoder, vocabulary, facts.get("sequence length"), model.description.source, params_sha256(model.params)
    )


def warn_of_long_rows(origin: Origin, longest: int) -> None:
    """Warn if rows have positions that pre-training never saw.

    Args:
        origin: what fine-tuning starts from.
        longest: tokens of the longest row.
    """
    length = origin.pretraining_length
    if length is not None and longest > length:
        logger.warning(
            "rows of up to %d tokens are longer than those of pre-training, %d: the positions beyond were never "
            "trained; set MAX_SEQ_LENGTH = %d, or pre-train with longer rows first (docs/pretraining.md)",
            longest,
            length,
            length,
        )


def same_ids(given: Vocabulary, found: Vocabulary) -> bool:
    """Return whether two vocabularies give text the same ids, apart from the casing of BERT vocabularies."""
    if found.lowercase is None or given.lowercase is None:
        return given.fingerprint == found.fingerprint
    return given.tokens == found.tokens


def take_weights(init_from: str | None, params: PyTree, *, quiet: bool, layers: int | None = None) -> PyTree:
    """Fill new parameters by name from a model directory, and print which are taken, new and left over.

    Args:
        init_from: the model directory; None leaves the parameters as they are.
        params: the new parameters, in their shardings.
        quiet: whether to print nothing, as for every seed but the first.
        layers: number of first layers to take; None for all.

    Raises:
        UserError: if no parameter has a name in common, or one has another shape.
    """
    if init_from is None:
        if not quiet:
            print_on_leader("weights: all of them random (INIT_FROM is None)")
        return params
    # The head of another task is not taken, even where it has the same shape.
    encoder = {name: tree for name, tree in params.items() if name != "head"}
    start = warm_start.start_from(init_from, encoder, layers=layers)
    if not quiet:
        fresh = [*start.fresh, *(f"head/{name}" for name in params.get("head", ()))]
        head = ", the encoder and the head of replaced tokens" if "head" in params.get("discriminator", {}) else None
        print_on_leader(f"weights from {Path(init_from)}: the embeddings{head or ' and the encoder'}")
        print_on_leader(f"  new:  {', '.join(fresh) or 'nothing'}")
        print_on_leader(f"  left: {', '.join(groups(start.unused)) or 'nothing'}")
    return {**params, **start.params}


def groups(paths: list[str]) -> list[str]:
    """Return the first two parts of each path, without repetitions."""
    return list(dict.fromkeys("/".join(path.split("/")[:2]) for path in paths))
