"""Make tests/parity/data/hf: tiny models of every head, and what `transformers` computes with them.

    pip install torch transformers && python tests/parity/make_hf_subset.py

It needs `transformers` and nothing of ours; the files it makes are small and are kept in the repository, so that the
parity tests run where neither `transformers` nor the recorded numbers of the original are.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent / "data" / "hf" / "subset"
ROWS, LENGTH, VOCAB = 3, 10, 40
SIZES = {
    "vocab_size": VOCAB,
    "embedding_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 12,
    # Large weights, so that an error anywhere is an error of the logits.
    "initializer_range": 0.2,
}
HEADS = {
    "pretraining": (transformers.ElectraForPreTraining, {}),
    # Heads and feed-forward as pre-training gives a generator of this width.
    "maskedlm": (transformers.ElectraForMaskedLM, {"num_attention_heads": 1, "intermediate_size": 64}),
    "seqcls": (transformers.ElectraForSequenceClassification, {"num_labels": 3}),
    "seqreg": (transformers.ElectraForSequenceClassification, {"num_labels": 1, "problem_type": "regression"}),
    "tokcls": (transformers.ElectraForTokenClassification, {"num_labels": 5}),
    "qa": (transformers.ElectraForQuestionAnswering, {}),
}


def labels(name: str, draw: np.random.Generator) -> dict[str, np.ndarray]:
    """Return random labels for a head."""
    if name == "qa":
        return {f"{end}_positions": draw.integers(0, LENGTH, ROWS) for end in ("start", "end")}
    if name == "seqreg":
        return {"labels": draw.standard_normal(ROWS).astype(np.float32)}
    high = {"pretraining": 2, "maskedlm": VOCAB, "seqcls": 3, "tokcls": 5}[name]
    values = draw.integers(0, high, ROWS if name == "seqcls" else (ROWS, LENGTH))
    if name in ("maskedlm", "tokcls"):
        values[draw.random(values.shape) < 0.5] = -100
    return {"labels": values}


def record(name: str) -> None:
    """Write the directory of one head."""
    torch.manual_seed(len(name))
    draw = np.random.default_rng(len(name))
    kind, options = HEADS[name]
    model = kind(transformers.ElectraConfig(**(SIZES | options))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    lengths = np.asarray([LENGTH, LENGTH - 3, 2])
    mask = (np.arange(LENGTH)[None] < lengths[:, None]).astype(np.int64)
    arrays = {
        "input_ids": draw.integers(1, VOCAB, (ROWS, LENGTH)) * mask,
        "attention_mask": mask,
        "token_type_ids": (np.arange(LENGTH)[None] >= lengths[:, None] // 2).astype(np.int64) * mask,
    }
    targets = labels(name, draw)
    tensors = {key: torch.tensor(value) for key, value in {**arrays, **targets}.items()}
    output = model(**tensors, output_hidden_states=True)
    output.loss.backward()
    results = {"loss": output.loss, "hidden_states": torch.stack(output.hidden_states)}
    results |= {key: output[key] for key in ("logits", "start_logits", "end_logits") if key in output}
    gradients = {key: value.grad.numpy() for key, value in model.named_parameters()}
    folder = HERE / name
    model.save_pretrained(folder)
    np.savez_compressed(folder / "io.npz", **arrays, **targets, **{k: v.detach().numpy() for k, v in results.items()})
    np.savez_compressed(folder / "grads.npz", **gradients)


if __name__ == "__main__":
    shutil.rmtree(HERE, ignore_errors=True)
    for head in HEADS:
        record(head)
