"""Compare states, logits, samples, labels, losses and gradients with every recorded pre-training case.

Tolerances are those that held between two independent implementations (see the oracle's README).
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.interchange import layout
from electra_jax.model.types import PyTree
from support.parity_case import Case, discover, keys_of, masked_of

LOGITS, LOSSES, GRADIENTS = 2e-5, 1e-5, 3e-6


def close(ours: Any, recorded: Any, tolerance: float, what: str) -> None:
    np.testing.assert_allclose(np.asarray(ours), recorded, rtol=0, atol=tolerance, err_msg=what)


@pytest.fixture(scope="module", params=discover("tf_pretrain/*.json", beside=".npz"))
def run(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Run one forward and backward pass of a case with its recorded draws."""
    path: Path = request.param
    case = Case.read(path)
    with np.load(path.with_suffix(".npz")) as file:
        arrays = {name: file[name] for name in file.files}
    model, objective, masking = case.model, case.objective, case.masking
    params, masked, keys = case.params(model), masked_of(arrays, masking), keys_of(arrays)

    names = list(objective.loss_weights)

    def weighted(params: PyTree) -> tuple[jax.Array, Any]:
        terms, outputs = objective.losses(model, params, masked, keys, masking=masking, deterministic=True)
        means = {name: term.sum / jnp.maximum(term.weight, 1.0) for name, term in terms.items()}
        return jnp.stack([objective.loss_weights[name] * means[name] for name in names]), (means, outputs)

    rows, (means, outputs) = jax.jit(jax.jacrev(weighted, has_aux=True))(params)
    separate = {name: jax.tree.map(lambda leaf, row=row: leaf[row], rows) for row, name in enumerate(names)}
    gradient = jax.tree.map(lambda leaf: leaf.sum(0), rows)
    locations = case.layout(model)
    return {
        "case": case,
        "arrays": arrays,
        "model": model,
        "params": params,
        "masked": masked,
        "loss": sum(weight * means[name] for name, weight in objective.loss_weights.items()),
        "means": means,
        "outputs": outputs,
        "gradient": layout.disassemble(gradient, locations),
        "separate": {name: layout.disassemble(tree, locations) for name, tree in separate.items()},
    }


def test_masking_is_the_originals(run: dict[str, Any]) -> None:
    arrays, masked = run["arrays"], run["masked"]
    np.testing.assert_array_equal(masked.masked_positions, arrays["out/masked_lm_positions"])
    np.testing.assert_array_equal(masked.masked_ids, arrays["out/masked_lm_ids"])
    np.testing.assert_array_equal(masked.masked_weights, arrays["out/masked_lm_weights"])
    np.testing.assert_array_equal(masked.tokens.input_ids, arrays["out/masked_input_ids"])


def test_generator_logits_samples_and_labels(run: dict[str, Any]) -> None:
    arrays, model, outputs, masked = run["arrays"], run["model"], run["outputs"], run["masked"]
    logits = outputs.generator_logits_BKV
    if logits is None:
        logits = model.apply({"params": run["params"]}, masked, deterministic=True, method="generate")
    close(logits, arrays["out/mlm_logits"], LOGITS, "mlm_logits")
    if outputs.corrupted is None:
        return
    np.testing.assert_array_equal(outputs.corrupted.sampled_ids_BK, arrays["out/sampled_tokids"])
    np.testing.assert_array_equal(outputs.corrupted.tokens.input_ids, arrays["out/fake_input_ids"])
    np.testing.assert_array_equal(outputs.corrupted.labels_BL, arrays["out/is_fake_tokens"])


def test_discriminator_logits(run: dict[str, Any]) -> None:
    if run["outputs"].discriminator_logits_BL is None:
        assert "out/disc_logits" not in run["arrays"]
        return
    close(run["outputs"].discriminator_logits_BL, run["arrays"]["out/disc_logits"], LOGITS, "disc_logits")


def test_losses(run: dict[str, Any]) -> None:
    arrays, means = run["arrays"], run["means"]
    close(run["loss"], arrays["out/total_loss"], LOSSES * max(1.0, run["case"].info["disc_weight"]), "total_loss")
    first = "out/cloze_loss" if "out/cloze_loss" in arrays else "out/mlm_loss"
    close(means.get("generator", means.get("prediction")), arrays[first], LOSSES, first)
    if "discriminator" in means:
        close(means["discriminator"], arrays["out/disc_loss"], LOSSES, "disc_loss")


def test_encoder_outputs(run: dict[str, Any]) -> None:
    arrays, masked, outputs = run["arrays"], run["masked"], run["outputs"]
    original = masked.tokens._replace(input_ids=jnp.asarray(arrays["in/input_ids"]))
    generates = (masked, "generate")
    discriminates = (outputs.corrupted and outputs.corrupted.tokens, "discriminate")
    one_encoder = run["case"].generator in ("tied", "none")
    towers = {
        "generator": (("generator",), generates),
        "generator_ltr": (("generator", "ltr"), (original, "cloze")),
        "generator_rtl": (("generator", "rtl"), (original, "cloze")),
        "electra": (("discriminator",), generates if one_encoder else discriminates),
        "electra_disc": (("discriminator",), discriminates),
    }
    recorded = [name for name in arrays if name.startswith("out/seq_out/")]
    assert recorded
    for name in recorded:
        path, (inputs, method) = towers[name.rpartition("/")[2].partition("_")[2]]
        _, state = run["model"].apply(
            {"params": run["params"]}, inputs, deterministic=True, method=method, mutable="intermediates"
        )
        tower = state["intermediates"]
        for part in (*path, "encoder", "layers"):
            tower = tower[part]
        close(tower["hidden"][0][-1], arrays[name], LOGITS, name)


def test_gradients(run: dict[str, Any]) -> None:
    arrays, case = run["arrays"], run["case"]
    norms = case.info["grad_norms"]
    worst = {}
    for name, ours in run["gradient"].items():
        if "/key/bias" in name:
            continue  # zero in exact arithmetic: what is recorded is rounding noise
        recorded = arrays.get(f"grad/{name}")
        if recorded is not None:
            worst[name] = np.abs(ours - recorded).max() / max(np.abs(recorded).max(), 1e-30)
        if name in norms:
            np.testing.assert_allclose(np.linalg.norm(ours.astype(np.float64)), norms[name], rtol=1e-5, err_msg=name)
    assert {name: value for name, value in worst.items() if not value <= GRADIENTS} == {}


def test_gradient_norms_of_each_loss(run: dict[str, Any]) -> None:
    for loss, key in (("generator", "gen"), ("prediction", "gen"), ("discriminator", "disc")):
        recorded = run["case"].info.get("grad_norms_separate", {}).get(key)
        if recorded is None or loss not in run["separate"]:
            continue
        for name, ours in run["separate"][loss].items():
            norm = np.linalg.norm(ours.astype(np.float64))
            if "/key/bias" in name:
                continue
            np.testing.assert_allclose(norm, recorded.get(name) or 0.0, rtol=1e-5, atol=1e-7, err_msg=f"{loss}: {name}")
