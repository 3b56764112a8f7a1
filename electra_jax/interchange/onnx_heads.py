"""Build the heads of ONNX graphs, for fine-tuned models and for replaced-token detection; see `model.heads`."""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from electra_jax.interchange.onnx_graph import BATCH, SEQUENCE, Graph, dense, gelu, layer_norm, length_of, places
from electra_jax.model.config import EncoderConfig
from electra_jax.model.heads import MASKED_LOGIT, HeadConfig
from electra_jax.model.types import PyTree

Inputs = dict[str, str]


def replaced_token(graph: Graph, params: PyTree, hidden: str) -> None:
    """Add one logit for each token: see `towers.ReplacedTokenHead`."""
    logits = dense(graph, gelu(graph, dense(graph, hidden, params["dense"])), params["prediction"])
    graph.output("logits", graph.add("Squeeze", logits, graph.integers(-1)), (BATCH, SEQUENCE))


def first_token(graph: Graph, hidden: str) -> str:
    """Return the hidden state of [CLS], [B, D]."""
    return graph.add("Gather", hidden, graph.constant(0, np.int64), axis=1)


def classification(
    graph: Graph, head: HeadConfig, config: EncoderConfig, params: PyTree, hidden: str, inputs: Inputs
) -> None:
    """Add the logits of a row, from [CLS] or from the mean of its tokens."""
    if head.classifier_pooling == "mean":
        weights = graph.add("Cast", inputs["attention_mask"], to=TensorProto.FLOAT)
        columns = graph.add("Unsqueeze", weights, graph.integers(2))
        sums = graph.add("ReduceSum", graph.add("Mul", hidden, columns), graph.integers(1), keepdims=0)
        counts = graph.add("ReduceSum", weights, graph.integers(1), keepdims=1)
        pooled = graph.add("Div", sums, graph.add("Max", counts, graph.constant(1.0)))
    else:
        pooled = first_token(graph, hidden)
    graph.output("logits", projected(graph, config, params, pooled), (BATCH, head.num_labels))


def tagging(graph: Graph, head: HeadConfig, config: EncoderConfig, params: PyTree, hidden: str, inputs: Inputs) -> None:
    """Add the logits of each token."""
    del inputs
    graph.output("logits", projected(graph, config, params, hidden), (BATCH, SEQUENCE, head.num_labels))


def projected(graph: Graph, config: EncoderConfig, params: PyTree, hidden: str) -> str:
    """Return logits: a projection, after a dense layer and GELU if the head has them, and ModernBERT's LayerNorm."""
    if "dense" in params:
        hidden = gelu(graph, dense(graph, hidden, params["dense"]))
    if "layer_norm" in params:
        hidden = layer_norm(graph, hidden, params["layer_norm"], config.layer_norm_eps)
    return dense(graph, hidden, params["prediction"])


def question_answering(
    graph: Graph, head: HeadConfig, config: EncoderConfig, params: PyTree, hidden: str, inputs: Inputs
) -> None:
    """Add the logits of the start and the end, and the logit of "has no answer" if the head has one."""
    if "span_kernel" in params:
        both = dense(graph, hidden, {"kernel": params["span_kernel"].T, "bias": params["span_bias"]})
    else:
        both = projected(graph, config, params, hidden)
    logits = [graph.add("Gather", both, graph.constant(number, np.int64), axis=2) for number in range(head.num_labels)]
    if head.mask_questions:
        penalty = answer_penalty(graph, head, inputs)
        logits = [graph.add("Add", one, penalty) for one in logits]
    for name, values in zip(("start_logits", "end_logits"), logits, strict=True):
        graph.output(name, values, (BATCH, SEQUENCE))
    if head.answerable != "none":
        answerable(graph, head, params["answerable"], hidden, logits[0])


def answer_penalty(graph: Graph, head: HeadConfig, inputs: Inputs) -> str:
    """Return 0 where an answer may start or end and -1000 elsewhere, float32 [B, L]; see `heads.answer_penalty`."""
    mask, numbers = inputs["attention_mask"], places(graph, inputs["attention_mask"])
    first = graph.add("Cast", graph.add("Equal", numbers, graph.constant(0, np.int64)), to=TensorProto.INT64)
    allowed = graph.add("Add", graph.add("Mul", mask, inputs["token_type_ids"]), first)
    if not head.final_sep_answers:
        one = graph.constant(1, np.int64)
        last = graph.add("Sub", graph.add("ReduceSum", mask, graph.integers(1), keepdims=1), one)
        allowed = graph.add("Where", graph.add("Equal", numbers, last), graph.constant(0, np.int64), allowed)
    above = graph.add("Sub", graph.add("Cast", allowed, to=TensorProto.FLOAT), graph.constant(1.0))
    return graph.add("Mul", above, graph.constant(MASKED_LOGIT))


def answerable(graph: Graph, head: HeadConfig, params: PyTree, hidden: str, start_logits: str) -> None:
    """Add the logit of "has no answer", from [CLS] and, for "start", the expected start; see `heads.AnswerableHead`."""
    features = first_token(graph, hidden)
    if head.answerable == "start":
        shares = graph.add("Unsqueeze", graph.add("Softmax", start_logits, axis=-1), graph.integers(1))
        expected = graph.add("Squeeze", graph.add("MatMul", shares, hidden), graph.integers(1))
        features = gelu(graph, dense(graph, graph.add("Concat", features, expected, axis=-1), params["hidden"]))
    logit = dense(graph, features, params["prediction"])
    graph.output("answerable_logit", graph.add("Squeeze", logit, graph.integers(-1)), (BATCH,))


def joint_question_answering(
    graph: Graph, head: HeadConfig, config: EncoderConfig, params: PyTree, hidden: str, inputs: Inputs
) -> None:
    """Add a beam of starts, and a beam of ends for each start; see `heads.JointQuestionAnsweringHead`."""
    start = graph.add("Squeeze", dense(graph, hidden, params["start"]), graph.integers(-1))
    penalty = answer_penalty(graph, head, inputs) if head.mask_questions else None
    start = start if penalty is None else graph.add("Add", start, penalty)
    graph.output("start_logits", start, (BATCH, SEQUENCE))
    beam = graph.add("Min", length_of(graph, hidden), graph.integers(head.beam_size))

    def best(logits: str, name: str, shape: tuple[str, ...]) -> str:
        shares = graph.add("LogSoftmax", logits, axis=-1)
        values, indices = graph.add_several("TopK", shares, beam, count=2, axis=-1)
        graph.output(f"{name}_top_log_probs", values, shape)
        graph.output(f"{name}_top_index", graph.add("Cast", indices, to=TensorProto.INT32), shape, TensorProto.INT32)
        return indices

    starts = best(start, "start", (BATCH, "beam"))
    # A product with [start; end] is the sum of a product with the start and one with the end.
    kernels = np.split(params["joint"]["kernel"], 2)
    of_starts = dense(graph, hidden, {"kernel": kernels[0]})
    columns = graph.add("Unsqueeze", starts, graph.integers(2))
    of_starts = graph.add("GatherND", of_starts, columns, batch_dims=1)
    of_ends = dense(graph, hidden, {"kernel": kernels[1], "bias": params["joint"]["bias"]})
    pairs = graph.add(
        "Add", graph.add("Unsqueeze", of_starts, graph.integers(2)), graph.add("Unsqueeze", of_ends, graph.integers(1))
    )
    end = graph.add("Squeeze", dense(graph, gelu(graph, pairs), params["end"]), graph.integers(-1))
    if penalty is not None:
        end = graph.add("Add", end, graph.add("Unsqueeze", penalty, graph.integers(1)))
    best(end, "end", (BATCH, "beam", "beam"))
    if head.answerable != "none":
        answerable(graph, head, params["answerable"], hidden, start)


HEADS: dict[str, Callable[[Graph, HeadConfig, EncoderConfig, PyTree, str, Inputs], None]] = {
    "sequence_classification": classification,
    "sequence_classification_reference": classification,
    "token_classification": tagging,
    "question_answering": question_answering,
    "joint_question_answering": joint_question_answering,
    "modernbert_sequence_classification": classification,
    "modernbert_token_classification": tagging,
    "modernbert_question_answering": question_answering,
}
