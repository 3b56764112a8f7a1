"""Say which of the blocks that other libraries know an encoder is made of, and what none of them has a place for."""

from collections.abc import Callable, Mapping
from typing import Any

from electra_jax.checkpoints.model_record import Description
from electra_jax.errors import UserError
from electra_jax.model.config import BERT_BLOCK, FULL, EncoderConfig

BERT, MODERNBERT = "bert", "modernbert"

NAMES = {BERT: "ELECTRA", MODERNBERT: "ModernBERT"}

# The switches of each kind of block, with the one value that they have there. Those that are not here are sizes and
# rates, or choices that the block has too.
SWITCHES: Mapping[str, Mapping[str, Any]] = {
    # Windows and angles are of no consequence to full layers with learned positions.
    BERT: {
        name: value
        for name, value in BERT_BLOCK.items()
        if name not in ("layer_types", "local_attention", "global_rope_theta", "local_rope_theta")
    },
    MODERNBERT: {
        "position_embedding_type": "rotary",
        "norm_placement": "pre",
        "gated_mlp": True,
        "qk_norm": False,
        "type_vocab_size": 0,
    },
}
# The same for switches whose value depends on others.
RULES: Mapping[str, Mapping[str, Callable[[EncoderConfig], tuple[bool, str]]]] = {
    BERT: {
        "layer_types": lambda config: (set(config.kinds) == {FULL}, f"{FULL!r} alone"),
        "type_vocab_size": lambda config: (config.type_vocab_size > 0, "a table of token types"),
    },
    MODERNBERT: {
        "embedding_size": lambda config: (
            config.embedding_size == config.hidden_size,
            f"hidden_size, {config.hidden_size}",
        ),
    },
}


def blocks_of(description: Description, *, known: tuple[str, ...], reader: str) -> str:
    """Return which blocks a model's towers are made of.

    Args:
        description: of the model.
        known: the blocks that the reader knows.
        reader: the library that is to read the model, for the message.

    Raises:
        UserError: if the reader has no place for a switch of an encoder.
    """
    towers = [config for config in (description.discriminator, description.generator) if config is not None]
    misfits = {blocks: [line for config in towers for line in misfits_of(config, blocks)] for blocks in known}
    nearest = min(misfits, key=lambda blocks: len(misfits[blocks]))
    if misfits[nearest]:
        switches = list(dict.fromkeys(misfits[nearest]))
        raise UserError(
            f"{reader} has no place for {', or for '.join(switches)}: train without "
            f"{'this switch' if len(switches) == 1 else 'these switches'}, or export with --format t5x, which has a "
            "place for every one"
        )
    return nearest


def misfits_of(config: EncoderConfig, blocks: str) -> list[str]:
    """Return a phrase for each switch of an encoder that blocks of a kind do not have."""
    rules = {name: (getattr(config, name) == value, repr(value)) for name, value in SWITCHES[blocks].items()} | {
        name: rule(config) for name, rule in RULES[blocks].items()
    }
    return [
        f"EncoderConfig.{name} = {getattr(config, name)!r} ({NAMES[blocks]} has {value})"
        for name, (fits, value) in rules.items()
        if not fits
    ]
