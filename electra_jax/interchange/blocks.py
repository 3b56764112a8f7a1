"""Tell which kind of block an encoder is made of, ELECTRA's or ModernBERT's, and which switches fit neither."""

from collections.abc import Callable, Mapping
from typing import Any

from electra_jax.checkpoints.model_record import Description
from electra_jax.errors import UserError
from electra_jax.model.config import BERT_BLOCK, FULL, EncoderConfig

BERT, MODERNBERT = "bert", "modernbert"

NAMES = {BERT: "ELECTRA", MODERNBERT: "ModernBERT"}

# The switches of each kind of block, with the only value that the block allows. Fields that are not listed are sizes or
# rates, or choices that the block has too.
SWITCHES: Mapping[str, Mapping[str, Any]] = {
    # Windows and rotary angles have no effect in full layers with learned positions.
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
# The same for switches whose allowed value depends on other fields.
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
    """Return the kind of block that a model's towers are made of.

    Args:
        description: the description of the model.
        known: the kinds of blocks that the reader knows.
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
    """Return a phrase for each switch of an encoder that does not fit a kind of block."""
    rules = {name: (getattr(config, name) == value, repr(value)) for name, value in SWITCHES[blocks].items()} | {
        name: rule(config) for name, rule in RULES[blocks].items()
    }
    return [
        f"EncoderConfig.{name} = {getattr(config, name)!r} ({NAMES[blocks]} has {value})"
        for name, (fits, value) in rules.items()
        if not fits
    ]
