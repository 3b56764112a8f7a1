"""Turn the encoder of any model into a model that gives a vector for each text."""

from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.checkpoints.model_record import Description
from electra_jax.errors import UserError
from electra_jax.model.config import EncoderConfig
from electra_jax.model.heads import WITHOUT_ANSWERS, HeadConfig
from electra_jax.model.pooling import POOLINGS, truncated

# The head whose vectors keep the length that the states give, and the head whose vectors have length 1.
PLAIN, NORMALIZED = "pooling", "normalized_pooling"


def pooling_head(encoder: EncoderConfig, pooling: str, *, normalize: bool) -> HeadConfig:
    """Return the head that makes a vector from the last states of an encoder.

    Args:
        encoder: the encoder.
        pooling: a name of `pooling.POOLINGS`.
        normalize: whether vectors have length 1.
    """
    return HeadConfig(
        kind=NORMALIZED if normalize else PLAIN,
        num_labels=encoder.hidden_size,
        dropout_prob=0.0,
        **WITHOUT_ANSWERS,
        classifier_pooling=pooling,
    )


def sentence_encoder(model: Loaded, *, layer: int | None, pooling: str | None) -> Loaded:
    """Return the encoder of any model up to a layer, with the head that makes vectors.

    Args:
        model: a model of any kind.
        layer: from 1 to N, or from -1 (the last) to -N; None for the last, which a model of vectors was made for.
        pooling: a name of `pooling.POOLINGS`; None for the model's own, or the mean if it has none.

    Raises:
        UserError: if there is no such layer or pooling.
    """
    description = model.description
    encoder, tower = description.encoder, "generator" if description.discriminator is None else "discriminator"
    own = description.head if description.kind == "sentence_embedding" else None
    if pooling is None:
        pooling = "mean" if own is None else own.classifier_pooling
    if pooling not in POOLINGS:
        raise UserError(f"pooling is {pooling!r}: it must be one of {', '.join(map(repr, POOLINGS))}")
    config, params = truncated(encoder, model.params[tower]["encoder"], checked_layer(encoder, layer))
    made = Description(
        kind="sentence_embedding",
        discriminator=config,
        generator=None,
        generator_embeddings=False,
        head=pooling_head(config, pooling, normalize=own is not None and own.kind == NORMALIZED),
        labels=(),
        facts={"longest row": description.row_length}
        | {name: value for name, value in description.facts.items() if name not in ("task", "longest row")},
    )
    return model._replace(
        description=made,
        params={"embeddings": model.params["embeddings"], "discriminator": {"encoder": params}},
    )


def checked_layer(encoder: EncoderConfig, layer: int | None) -> int:
    """Return the number of a layer, from 1 to N.

    Raises:
        UserError: if there is no such layer.
    """
    most = encoder.num_hidden_layers
    if layer is None:
        return most
    if layer == 0 or abs(layer) > most:
        raise UserError(f"layer is {layer}: this model has layers 1 to {most}, or from the last one -1 to -{most}")
    return layer if layer > 0 else most + 1 + layer
