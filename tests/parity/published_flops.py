"""Count FLOPs as the release of ELECTRA does for the comparisons of the paper (Table 1 and Appendix E).

These are the numbers behind "a quarter of the compute". They do not say what a step costs, which
`electra_jax.pretraining.flops` counts:

- the backward pass counts as much as the forward pass (x 2 in all), although it has twice the matrix products (x 3);
- looking up a word counts as a product with the whole table;
- additions, activations, dropout, softmax and LayerNorm are counted, GELU in its tanh form;
- the LayerNorm after attention counts as 5 instead of 5 x hidden size;
- the weighted average over values and the product after it count the hidden size even if the heads are wider.
"""

import dataclasses

DROPOUT, LAYER_NORM, GELU, SOFTMAX = 4, 5, 8, 5


@dataclasses.dataclass(frozen=True)
class Transformer:
    """Hold sizes, in the terms of the release.

    Attributes:
        hidden_size, num_layers, sequence_length, vocab_size, embedding_size, intermediate_size, num_heads: as usual.
        projection_size: of queries, keys and values together; the hidden size except in T5.
        predicted_share: of tokens, whose words are predicted.
        sparse_lookup: a word is looked up and not multiplied out.
        cross_attention: a decoder, with twice the attention.
    """

    hidden_size: int
    num_layers: int
    sequence_length: int
    vocab_size: int
    embedding_size: int
    intermediate_size: int
    num_heads: int
    projection_size: int
    predicted_share: float
    sparse_lookup: bool
    cross_attention: bool

    def layer(self) -> int:
        """Return the forward FLOPs of one layer over a sequence."""
        hidden, inner, projection = self.hidden_size, self.intermediate_size, self.projection_size
        attended = self.sequence_length
        scores = attended * self.num_heads
        attention = (
            3 * 2 * hidden * projection
            + 3 * projection
            + 2 * projection * attended
            + SOFTMAX * scores
            + DROPOUT * scores
            + scores
            + 2 * hidden * attended
            + 2 * hidden * hidden
            + hidden
            + DROPOUT * hidden
            + hidden
            + LAYER_NORM
        )
        feed_forward = (
            2 * hidden * inner
            + GELU * inner
            + inner
            + 2 * hidden * inner
            + hidden
            + DROPOUT * hidden
            + hidden
            + LAYER_NORM * hidden
        )
        return ((2 if self.cross_attention else 1) * attention + feed_forward) * self.sequence_length

    def embedding_input(self) -> int:
        """Return the forward FLOPs of the embeddings of a sequence."""
        size = self.embedding_size
        lookup = 0 if self.sparse_lookup else 2 * size * self.vocab_size
        per_token = lookup + 2 * size * (self.sequence_length + 2) + 2 * size + LAYER_NORM * size + DROPOUT * size
        if size != self.hidden_size:
            per_token += 2 * self.hidden_size * size + self.hidden_size
        return per_token * self.sequence_length

    def word_output(self) -> float:
        """Return the forward FLOPs of predicting the words of the predicted share of a sequence."""
        size = self.embedding_size
        softmax = 2 * size * self.vocab_size + SOFTMAX * self.vocab_size + 2 * self.vocab_size
        per_token = softmax + 2 * self.hidden_size * size + size + GELU * size + LAYER_NORM * size
        return self.predicted_share * per_token * self.sequence_length

    def replaced_token_output(self) -> int:
        """Return the forward FLOPs of the discriminator's head over a sequence."""
        hidden = self.hidden_size
        return (2 * hidden * hidden + hidden + GELU * hidden + 2 * hidden) * self.sequence_length

    def encoder(self) -> int:
        """Return the forward FLOPs of embeddings and layers over a sequence."""
        return self.num_layers * self.layer() + self.embedding_input()

    def inference(self) -> int:
        """Return the forward FLOPs over a sequence as the release counts them: with the discriminator's head."""
        return self.encoder() + self.replaced_token_output()

    def training(self, *, batch_size: int, num_train_steps: float, discriminates: bool) -> float:
        """Return the FLOPs of pre-training."""
        output = self.replaced_token_output() if discriminates else self.word_output()
        return 2 * batch_size * num_train_steps * (self.encoder() + output)


def bert_like(
    hidden_size: int,
    num_layers: int,
    *,
    sequence_length: int = 512,
    vocab_size: int = 30522,
    embedding_size: int | None = None,
    predicted_share: float = 0.15625,
) -> Transformer:
    """Return a Transformer of BERT's proportions; the defaults are those of the published comparison."""
    return Transformer(
        hidden_size=hidden_size,
        num_layers=num_layers,
        sequence_length=sequence_length,
        vocab_size=vocab_size,
        embedding_size=embedding_size or hidden_size,
        intermediate_size=4 * hidden_size,
        num_heads=max(hidden_size // 64, 1),
        projection_size=hidden_size,
        predicted_share=predicted_share,
        sparse_lookup=False,
        cross_attention=False,
    )


def electra(discriminator: Transformer, generator: Transformer, *, batch_size: int, num_train_steps: float) -> float:
    """Return the FLOPs of pre-training both towers."""
    return discriminator.training(
        batch_size=batch_size, num_train_steps=num_train_steps, discriminates=True
    ) + generator.training(batch_size=batch_size, num_train_steps=num_train_steps, discriminates=False)


def published_models() -> dict[str, float]:
    """Return the pre-training FLOPs of the 13 models that the release compares.

    ELMo and XLNet are its measurements of other graphs, and not counted.
    """

    def bert(model: Transformer, batch_size: int, num_train_steps: float) -> float:
        return model.training(batch_size=batch_size, num_train_steps=num_train_steps, discriminates=False)

    def large_electra(num_train_steps: float) -> float:
        return electra(
            bert_like(1024, 24),
            bert_like(256, 24, embedding_size=1024),
            batch_size=2048,
            num_train_steps=num_train_steps,
        )

    t5_encoder = dataclasses.replace(
        bert_like(1024, 24, vocab_size=32000, predicted_share=0.0),
        intermediate_size=65536,
        num_heads=128,
        projection_size=128 * 128,
    )
    t5_decoder = dataclasses.replace(t5_encoder, predicted_share=1.0, cross_attention=True)
    return {
        "elmo": 2 * 10 * 768648884 * 568093262680 / (20.0 * 128),
        "xlnet": 2 * 500000 * 8192 * 15064773691518 / 32.0,
        "gpt": bert(bert_like(768, 12, vocab_size=40000, predicted_share=1.0), 128, 960800),
        "bert_small": bert(bert_like(256, 12, embedding_size=128, sequence_length=128), 128, 1.45e6),
        "bert_base": bert(bert_like(768, 12), 256, 1e6),
        "bert_large": bert(bert_like(1024, 24), 256, 1e6),
        "electra_small": electra(
            bert_like(256, 12, embedding_size=128, sequence_length=128),
            bert_like(64, 12, embedding_size=128, sequence_length=128),
            batch_size=128,
            num_train_steps=1e6,
        ),
        "electra_base": electra(
            bert_like(768, 12), bert_like(256, 12, embedding_size=768), batch_size=256, num_train_steps=766000
        ),
        "electra_400k": large_electra(400000),
        "electra_1.75M": large_electra(1750000),
        "roberta": bert(bert_like(1024, 24, vocab_size=50265), 8000, 500000),
        "albert": bert(bert_like(4096, 12, vocab_size=30000, embedding_size=128), 4096, 1.5e6),
        "t5_11b": bert(t5_encoder, 2048, 1e6) + bert(t5_decoder, 2048, 1e6),
    }
