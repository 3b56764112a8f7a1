"""What T5X is given, without T5X: parameters and their axes, losses, metrics, predictions, Gin files, checkpoints."""

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import seqio
from flax import linen as nn
from flax import serialization, traverse_util
from gin import config_parser

import electra_jax
from electra_jax import t5x
from electra_jax.checkpoints import model_dir, model_record, orbax_store, t5x_layout, warm_start
from electra_jax.cli import main
from electra_jax.config import gin_files
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.data.batches import Batch
from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.finetuning import steps as finetuning
from electra_jax.pretraining import metrics, steps
from electra_jax.tasks.host_tensorflow import tf
from electra_jax.tasks.vocabulary import write_vocab_file
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.state import TrainState
from support.command_line import FILES, SMALL, WORDS, write_small_text
from support.questions import QUESTIONS, squad, written

ROOT = Path(__file__).parent.parent
# Those of T5X's standard rules that a parameter may have; it leaves others whole without a word.
T5X_NAMES = {"vocab", "embed", "mlp", "heads", "kv", "joined_kv", "abspos_buckets", "layers", "stack", None}
RUN_FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "gin/t5x").glob("*.gin"))
ROW = {"input_ids": 0, "token_type_ids": 0, "attention_mask": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text, its vocabulary, and a classification task."""
    folder = tmp_path_factory.mktemp("t5x")
    write_small_text(folder)
    for split, number in (("train", 8), ("dev", 5)):
        lines = [f"{' '.join(WORDS[n : n + 3])}\t{'yes' if n % 3 else 'no'}" for n in range(number)]
        (folder / f"{split}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    return folder


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    before = set(seqio.TaskRegistry.names())
    yield
    for name in set(seqio.TaskRegistry.names()) - before:
        seqio.TaskRegistry.remove(name)


def pretraining_model(folder: Path, **macros: Any) -> t5x.PretrainingModel:
    """Of a run as its Gin file builds it."""
    texts = {"MODEL_DIR": "run", "CORPUS": str(folder / "text.txt"), "VOCAB_FILE": str(folder / "vocab.txt")}
    bindings = [f"{name}={value!r}" for name, value in (SMALL | texts | macros).items()]
    files = [file.removeprefix("--gin_file=") for file in FILES]
    return t5x.PretrainingModel(gin_files.build(PretrainingRun, files, bindings, search_paths=[]))


def finetuning_model(folder: Path, **macros: Any) -> t5x.FinetuningModel:
    """From random weights of the same sizes."""
    sizes = {name: value for name, value in SMALL.items() if name.startswith("encoder.") or name == "VOCAB_SIZE"}
    settings = {
        "MODEL_DIR": "run",
        "INIT_FROM": None,
        "VOCAB_FILE": str(folder / "vocab.txt"),
        "TASK": "classification",
        "TRAIN_FILE": str(folder / "train.tsv"),
        "DEV_FILE": str(folder / "dev.tsv"),
        "TEXT_COLUMN": "text",
        "LABEL_COLUMN": "label",
        "MAX_SEQ_LENGTH": 16,
    }
    bindings = [f"{name}={value!r}" for name, value in (sizes | settings | macros).items()]
    files = ["gin/models/tiny.gin", "gin/runs/finetune.gin"]
    run = gin_files.build(FinetuningRun, files, bindings, search_paths=[])
    return t5x.FinetuningModel(run, 10)


def token_batch(rows: int, seed: int) -> Batch:
    """Random tokens, padding in the end of each row but the first."""
    draw, length = np.random.default_rng(seed), 32
    ids_BL = draw.integers(5, SMALL["VOCAB_SIZE"], (rows, length))
    mask_BL = np.ones((rows, length), np.int32)
    for row in range(1, rows):
        mask_BL[row, draw.integers(length // 2, length) :] = 0
    return {
        "input_ids": (ids_BL * mask_BL).astype(np.int32),
        "token_type_ids": np.zeros((rows, length), np.int32),
        "attention_mask": mask_BL,
    }


def variables(model: t5x.Model, key: jax.Array) -> dict[str, Any]:
    """What T5X gets, from a key as T5X has it."""
    return model.get_initial_variables(key, {"input_ids": (4, 32)}, None)


def initial(model: t5x.Model) -> dict[str, Any]:
    """Parameters, compiled at once."""
    return jax.jit(lambda key: variables(model, key)["params"])(jax.random.PRNGKey(0))


@pytest.fixture(scope="module")
def pretraining(folder: Path) -> tuple[t5x.PretrainingModel, dict[str, Any]]:
    """A model with dropout, and its parameters."""
    model = pretraining_model(folder, DROPOUT=0.1)
    return model, initial(model)


@pytest.mark.parametrize("kind", ["pretraining", "finetuning"])
def test_parameters_come_unboxed_with_an_axis_name_each(folder: Path, kind: str) -> None:
    key = jax.random.PRNGKey(0)
    if kind == "pretraining":
        model = pretraining_model(folder)
        boxed = jax.eval_shape(lambda: steps.init_params(jax.random.key(0), model.run.model, 32))
    else:
        model = finetuning_model(folder)
        boxed = jax.eval_shape(lambda: finetuning.init_params(jax.random.key(0), model._model))
    found = jax.eval_shape(lambda: variables(model, key)["params"])
    axes = traverse_util.flatten_dict(jax.eval_shape(lambda: variables(model, key)["params_axes"]), sep="/")
    shapes = traverse_util.flatten_dict(found, sep="/")
    wanted = traverse_util.flatten_dict(nn.get_partition_spec(boxed), sep="/")
    assert axes.keys() == {f"{path}_axes" for path in shapes}
    for path, shape in shapes.items():
        names = tuple(axes[f"{path}_axes"].names)
        assert names == tuple(wanted[path])
        assert len(names) == len(shape.shape)
        assert set(names) <= T5X_NAMES
        assert len({name for name in names if name}) == len([name for name in names if name])


def test_a_step_of_t5x_is_a_step_of_electra_pretrain(
    pretraining: tuple[t5x.PretrainingModel, dict[str, Any]],
) -> None:
    """The same key and batch give the same metrics and updated parameters, dropout, masks and samples included."""
    (model, params), batch = pretraining, token_batch(4, 0)
    optimizer = make_optimizer(model.optimizer_config)
    key_data = jax.random.PRNGKey(7)
    opt_state = optimizer.init(params)
    state = TrainState(jnp.asarray(3, jnp.int32), params, opt_state, key_data)
    pieces = {"model": model.run.model, "objective": model.run.objective, "masking": model._pieces["masking"]}
    step = functools.partial(steps.pretrain_step, **pieces, optimizer=optimizer, accumulation_steps=1)
    after, sums = jax.jit(step)(state, batch)
    # T5X folds the step into its own key, as raw numbers.
    rng = jax.random.fold_in(key_data, 3)
    (loss, found), grads = jax.jit(jax.value_and_grad(model.loss_fn, has_aux=True))(params, batch, rng)
    updates, _ = optimizer.update(grads, opt_state, params)
    updated = jax.tree.map(jnp.add, params, updates)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), updated, after.params)
    wanted = metrics.finish(jax.device_get(sums), model.run.objective.loss_weights)
    assert {name: metric.compute() for name, metric in jax.device_get(found).items()} == pytest.approx(
        wanted, nan_ok=True
    )
    assert float(loss) == pytest.approx(wanted["loss"], rel=1e-5)


def test_metrics_of_batches_add_up(pretraining: tuple[t5x.PretrainingModel, dict[str, Any]]) -> None:
    """Merged, they are those of the summed sums: not a mean of quotients, and the AUC is of both histograms."""
    model, params = pretraining
    evaluate = jax.jit(model.eval_fn)
    sums = [jax.device_get(evaluate(params, token_batch(4, seed))[1]) for seed in (0, 1)]
    merged = jax.jit(lambda a, b: {name: a[name].merge(b[name]) for name in a})(*sums)
    both = {name: value + sums[1]["loss"].sums[name] for name, value in sums[0]["loss"].sums.items()}
    wanted = metrics.finish(both, model.run.objective.loss_weights)
    values = {name: float(metric.compute_value().value) for name, metric in jax.device_get(merged).items()}
    assert values == pytest.approx(wanted, nan_ok=True)
    assert 0 < values["discriminator_auc"] < 1


def test_fine_tuning_as_t5x_calls_it(folder: Path) -> None:
    model = finetuning_model(folder, DROPOUT=0.1)
    params = initial(model)
    name = t5x.task_name(model)
    dataset = seqio.get_dataset(name, t5x.feature_lengths(model), model.FEATURE_CONVERTER_CLS(), "validation")
    batch = {key: np.stack([row[key] for row in dataset.as_numpy_iterator()]) for key in (*ROW, "label")}
    loss, found = jax.jit(model.eval_fn)(params, batch)
    predictions, aux = jax.jit(model.predict_batch_with_aux)(params, batch)
    logits = np.asarray(aux["logits"], np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    of_labels = log_probs[np.arange(5), batch["label"]]
    np.testing.assert_allclose(jax.jit(model.score_batch)(params, batch), of_labels, rtol=1e-5)
    assert float(loss) == pytest.approx(-of_labels.mean(), rel=1e-5)
    assert float(found["loss"].compute()) == pytest.approx(float(loss))
    # Dropout draws from the step's key alone.
    train = jax.jit(model.loss_fn)
    drawn = [float(train(params, batch, jax.random.PRNGKey(seed))[0]) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    # SeqIO's Evaluator takes the predictions as they are.
    evaluator = seqio.Evaluator(
        name,
        feature_converter=model.FEATURE_CONVERTER_CLS(),
        eval_split="validation",
        sequence_length=t5x.feature_lengths(model),
    )

    def predict(rows: tf.data.Dataset) -> list[tuple[int, np.ndarray]]:
        return [(int(index), np.asarray(predictions)[int(index)]) for index, _ in rows.as_numpy_iterator()]

    scores = evaluator.evaluate(compute_metrics=True, predict_fn=predict)[0].result()[name]
    assert scores["accuracy"] == pytest.approx(100 * np.mean(logits.argmax(-1) == batch["label"]))
    assert float(t5x.learning_rate_fn(model)(0)) == 0.0
    assert float(t5x.learning_rate_fn(model)(1)) == pytest.approx(1e-4 * 0.9)


def test_what_t5x_cannot_do_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="ACCUMULATION_STEPS is 2: under T5X it must be 1"):
        pretraining_model(folder, ACCUMULATION_STEPS=2)
    with pytest.raises(UserError, match=r"DISC_WEIGHT_END is 0\.5: under T5X it must be 1\.0"):
        pretraining_model(folder, DISC_WEIGHT_END=0.5)
    falling = {"pretraining.ReplacedTokenDetection.temperature": ((0.0, 2.0), (1.0, 1.0))}
    with pytest.raises(UserError, match=r"temperature is .*: under T5X it must be a number"):
        pretraining_model(folder, **falling)
    with pytest.raises(UserError, match=r"MASK_PROB is .*: under T5X it must be a number"):
        pretraining_model(folder, MASK_PROB=((0.0, 0.3), (1.0, 0.15)))
    with pytest.raises(UserError, match=r"BATCH_SIZE_WARMUP and SEQUENCE_LENGTH_WARMUP must be \(\) under T5X"):
        pretraining_model(folder, SEQUENCE_LENGTH_WARMUP=((0.5, 8),))
    for groups in ({"optimizer.OptimizerConfig.rule": "muon"}, {"GENERATOR_LEARNING_RATE": 1e-3}):
        with pytest.raises(UserError, match="T5X cannot shard the optimizer's state where groups of parameters have"):
            t5x.optimizer_def(pretraining_model(folder, **groups).optimizer_config)
    written(folder / "train.json", squad(QUESTIONS[:1]))
    with pytest.raises(UserError, match="squad_v1 is question answering, which T5X has no place for"):
        finetuning_model(folder, TASK="squad_v1", TRAIN_FILE=str(folder / "train.json"), DEV_FILE=None)
    choices = {"TRAIN_FILE": str(folder / "choices.csv"), "CHOICE_COLUMNS": ("a", "b"), "LABEL_COLUMN": "right"}
    (folder / "choices.csv").write_text("text,a,b,right\none,two,three,0\n")
    with pytest.raises(UserError, match="multiple_choice is multiple choice, which T5X has no place for"):
        finetuning_model(folder, TASK="multiple_choice", DEV_FILE=None, TEXT_COLUMN="text", **choices)
    with pytest.raises(UserError, match="FROZEN_LAYERS is a setting of electra finetune, which T5X does not follow"):
        finetuning_model(folder, FROZEN_LAYERS=1)
    lists = folder / "lists.jsonl"
    lists.write_text('{"text": "a", "label": ["x"]}\n')
    with pytest.raises(UserError, match="classification gives a text several labels, which T5X does not support"):
        finetuning_model(folder, TRAIN_FILE=str(lists), DEV_FILE=None)


class Names(config_parser.ParserDelegate):
    """Takes references of a Gin file by their names, whose modules need not be there."""

    def __init__(self) -> None:
        self.references: list[str] = []

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> str:
        self.references.append(scoped_configurable_name.rpartition("/")[2])
        return scoped_configurable_name

    def macro(self, macro_name: str) -> str:
        return macro_name


@pytest.mark.parametrize("file", RUN_FILES)
def test_gin_files(file: str) -> None:
    """They are Gin, bind only arguments that ours have, use every macro, and tell those that must be set."""
    text, names = (ROOT / file).read_text(), Names()
    statements = list(config_parser.ConfigParser(text, names))
    bound = [one for one in statements if isinstance(one, config_parser.BindingStatement)]
    assert bound
    ours = {name for name in names.references if name.startswith("electra_t5x.")}
    for statement in bound:
        if statement.selector.startswith("electra_t5x."):
            ours.add(statement.selector)
            parameters = inspect.signature(getattr(t5x, statement.selector.removeprefix("electra_t5x."))).parameters
            assert statement.arg_name in parameters
    assert ours
    assert all(hasattr(t5x, name.removeprefix("electra_t5x.")) for name in ours)
    for statement in statements:
        if isinstance(statement, config_parser.IncludeStatement):
            assert (ROOT / statement.filename).exists()
    required = re.findall(r"^(\w+) = %gin.REQUIRED", text, flags=re.MULTILINE)
    assert all(name in text.partition("from __gin__")[0] for name in required)
    used = gin_files.references(list((ROOT / "gin").rglob("*.gin")))
    assert gin_files.definitions([ROOT / file]).keys() <= used.keys()


def test_nothing_else_names_it() -> None:
    """No module of the project imports T5X, or the adapter."""
    for path in [*(ROOT / "electra_jax").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")]:
        if path == ROOT / "electra_jax/t5x.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            assert not any(name.split(".")[0] == "t5x" or name.startswith("electra_jax.t5x") for name in names), path


def updated_moments(optimizer: optax.GradientTransformation, params: dict[str, Any]) -> optax.OptState:
    """An optimizer's state after a gradient of ones."""

    def update(params: dict[str, Any]) -> optax.OptState:
        return optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)[1]

    return jax.jit(update)(params)


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A run directory of `electra pretrain` with parameters and optimizer after 2 steps, as far as readers go."""
    model = pretraining_model(folder, MODEL_DIR=str(folder / "run"))
    (folder / "run").mkdir()
    (folder / "run" / "config.gin").write_text(gin_files.resolved())
    optimizer = make_optimizer(model.optimizer_config)
    params = initial(model)
    opt_state = updated_moments(optimizer, params)
    state = TrainState(jnp.asarray(2, jnp.int32), params, opt_state, jax.random.PRNGKey(0))
    writer = orbax_store.Checkpoints(folder / "run", keep=1)
    writer.save(2, state, {"batches": {}})
    writer.close()
    return folder / "run"


def test_an_exported_run_is_what_t5x_saves(folder: Path, run: Path, tmp_path: Path) -> None:
    """`target`, `state/step` and `state/param_states`, as T5X's OptaxWrapper makes them of the same state."""
    assert main(["export", str(run), str(tmp_path / "out"), "--format", "t5x"]) == 0
    model = pretraining_model(folder)
    optimizer = make_optimizer(model.optimizer_config)
    params = initial(model)
    opt_state = updated_moments(optimizer, params)
    wanted = traverse_util.flatten_dict(serialization.to_state_dict(opt_state), sep="/")
    found = orbax_store.read_item(tmp_path / "out", "opt_state")
    assert (found.step, int(found.tree["step"])) == (2, 2)
    held = traverse_util.flatten_dict(found.tree["param_states"], sep="/")
    assert held.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(held[name], value)
    target = orbax_store.read_item(tmp_path / "out", "params").tree
    jax.tree.map(np.testing.assert_array_equal, target, jax.device_get(params))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_checkpoints_of_t5x_are_read(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest finished one, as a model and as what a run or a fine-tuning starts from."""
    out = tmp_path / "out"
    assert main(["export", str(run), str(out), "--format", "t5x"]) == 0
    theirs, ours = electra_jax.load(out), electra_jax.load(run)
    ids = [[2, 7, 8, 9, 3]]
    np.testing.assert_array_equal(theirs.logits(ids), ours.logits(ids))
    assert theirs.vocabulary == ours.vocabulary
    params = jax.tree.map(jnp.zeros_like, orbax_store.read_item(run, "params").tree)
    start = warm_start.start_from(out, params)
    assert (start.fresh, start.unused) == ([], [])
    encoder = ours.description.encoder
    begun = warm_start.initialize_from(
        params, path_of(out), ours.vocabulary, encoder=encoder, map_vocabulary=False, extend_positions=None
    )
    assert (begun.new, begun.left_over) == ([], [])
    for found in (start.params, begun.params):
        jax.tree.map(np.testing.assert_array_equal, found, orbax_store.read_item(run, "params").tree)
    t5x_layout.write(out, step=5, params=jax.tree.map(lambda x: np.asarray(x) + 1, ours.params), opt_state=None)
    (out / "checkpoint_9.orbax-checkpoint-tmp-1").mkdir()
    assert model_dir.load(out).step == 5
    capsys.readouterr()
    assert main(["export", str(out), str(tmp_path / "again"), "--format", "t5x"]) == 2
    assert f"{out} holds checkpoints of T5X already" in capsys.readouterr().err
    (out / "model.json").unlink()
    with pytest.raises(UserError, match=r"holds checkpoints of T5X without model\.json"):
        model_dir.load(out)


def test_what_t5x_saves_of_a_variant_is_folded(folder: Path, tmp_path: Path) -> None:
    """BERT is trained with its head in another place than where a reader of models looks for it."""
    files = [file.removeprefix("--gin_file=") for file in FILES]
    texts = {"MODEL_DIR": "run", "CORPUS": str(folder / "text.txt"), "VOCAB_FILE": str(folder / "vocab.txt")}
    bindings = [f"{name}={value!r}" for name, value in (SMALL | texts).items()]
    run = gin_files.build(PretrainingRun, [*files, "gin/objectives/mlm.gin"], bindings, search_paths=[])
    model = t5x.PretrainingModel(run)
    description, vocabulary = model.describe()
    assert description.kind == "generator"
    params = jax.device_get(initial(model))
    t5x_layout.write(tmp_path, step=1, params=params, opt_state=None)
    model_record.write_model_record(tmp_path, description)
    write_vocab_file(tmp_path / "vocab.txt", vocabulary)
    found = model_dir.load(tmp_path).params
    np.testing.assert_array_equal(
        found["generator"]["encoder"]["layers"]["intermediate"]["kernel"],
        params["discriminator"]["encoder"]["layers"]["intermediate"]["kernel"],
    )
