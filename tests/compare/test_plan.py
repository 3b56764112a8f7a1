"""`electra compare`: the plan in hand-worked FLOPs, what is ready, and how long it will take."""

from pathlib import Path
from typing import Any

import pytest

from electra_jax.compare.compared_item import COMPARED, TRUNK, TUNING, WorkItem
from electra_jax.compare.plan import Plan, Timing, make_plan, own_work, ready, seconds_left
from electra_jax.compare.work import gpu_share, last_words
from electra_jax.config import gin_files
from electra_jax.config.comparison import ComparisonRun, GridPoint
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.probing import ProbeRun
from electra_jax.model.config import FULL, SLIDING
from electra_jax.training.optimizer import learning_rate
from support.command_line import MODERN
from support.comparison import ELECTRA_STEP, ENCODER, GENERATOR, MACROS, MLM_STEP, configured, plan_of_macros
from support.tiny_model import MASKING


@pytest.fixture(scope="module")
def planned() -> tuple[ComparisonRun, Plan]:
    return plan_of_macros()


def test_the_same_flops_are_other_steps_of_each_variant(planned: tuple[ComparisonRun, Plan]) -> None:
    _, plan = planned
    assert (ELECTRA_STEP, MLM_STEP) == (11_649_024, 9_793_536)
    assert plan.step_flops == {"electra": ELECTRA_STEP, "mlm": MLM_STEP}
    # 1e9 FLOPs are 85.8 and 102.1 steps.
    assert plan.total_steps == {"electra": 86, "mlm": 102}
    steps = {item.name: item.steps for item in plan.items if item.task is None}
    assert steps == {
        "electra/0.2/pretrain": 17,
        "mlm/0.2/pretrain": 20,
        "electra/0.5/pretrain": 43,
        "mlm/0.5/pretrain": 51,
        "electra/1/pretrain": 86,
        "mlm/1/pretrain": 102,
    }
    assert {item.flops / item.steps for item in plan.items if item.variant == "mlm"} == {float(MLM_STEP)}
    assert [item.name for item in plan.items][:8] == [
        "random/rte",
        "random/mine",
        "electra/0.2/pretrain",
        "electra/0.2/rte",
        "electra/0.2/mine",
        "mlm/0.2/pretrain",
        "mlm/0.2/rte",
        "mlm/0.2/mine",
    ]


def test_the_steps_of_a_generator_alone_are_paid_from_the_same_budget() -> None:
    """A quarter of 1e9 FLOPs makes 139.4 steps of it, the rest 64.4 of both, or 71.7 where it is frozen."""
    first = ("first", "GENERATOR_FIRST = 0.25")
    frozen = ("frozen", "gin/objectives/nes.gin", "GENERATOR_FIRST = 0.25", "FREEZE_GENERATOR = True")
    variants, fractions = [first, frozen, ("electra",)], (0.125, 0.5, 1.0)
    plan = make_plan(configured(Path("runs/it"), VARIANTS=variants, FRACTIONS=fractions), {})
    alone = 3 * GENERATOR
    assert alone == 1_794_048
    steps = {
        name: [item.steps for item in plan.items if item.task is None and item.variant == name]
        for name in ("first", "frozen")
    }
    assert steps == {"first": [69, 161, 204], "frozen": [70, 163, 211]}
    for item in plan.items:
        assert item.flops == pytest.approx(item.fraction * 1e9, abs=ELECTRA_STEP), item.name
    of = {item.name: item for item in plan.items if item.task is None}
    assert of["first/0.5/pretrain"].flops == 140 * alone + 21 * ELECTRA_STEP
    assert of["frozen/1/pretrain"].flops == 139 * alone + 72 * (ELECTRA_STEP - 2 * GENERATOR)
    built = {item.name: built_by(item) for item in plan.items if item.task is None}
    setups = {
        name: run.setup(MASKING).phases.generator_steps for name, run in built.items() if name.startswith("first/")
    }
    assert setups == {"first/0.125/pretrain": 140, "first/0.5/pretrain": 140, "first/1/pretrain": 140}


def test_steps_that_grow_are_counted_one_by_one(tmp_path: Path) -> None:
    """Half of the steps have half of the rows: 136 steps cost as much as 102 whole ones, and a fifth of that 41."""
    grown = ("grown", "gin/objectives/mlm.gin", "BATCH_SIZE_WARMUP = ((0.5, 4),)")
    plan = make_plan(configured(tmp_path, VARIANTS=[grown]), {})
    assert plan.step_flops == {"grown": round(0.75 * MLM_STEP)}
    assert plan.total_steps == {"grown": 136}
    of = {item.fraction: item for item in plan.items if item.task is None}
    assert {fraction: item.steps for fraction, item in of.items()} == {0.2: 41, 0.5: 85, 1.0: 136}
    assert of[0.2].flops == 41 * MLM_STEP / 2
    assert of[0.5].flops == 68 * MLM_STEP / 2 + 17 * MLM_STEP
    assert of[1.0].flops == pytest.approx(1e9, rel=0.01)
    built = built_by(of[0.2])
    assert (built.loop.num_train_steps, built.batch_shapes.changes) == (41, (68,))


def test_blocks_of_another_kind_are_a_variant(tmp_path: Path) -> None:
    """By hand: three kernels of the feed-forward, 32 keys in the first layer, three blocks of 4 in the second."""
    lines = [f"{name} = {value!r}" for name, value in MODERN.items()]
    plan = make_plan(configured(tmp_path, VARIANTS=[("modern", "gin/objectives/mlm.gin", *lines)]), {})
    encoder = 2 * 8 * 32 * (2 * (4 * 16 * 16 + 3 * 16 * 32) + 2 * 32 * 16 + 2 * 12 * 16)
    assert plan.step_flops == {"modern": 3 * (encoder + 2 * 32 * 16 * (16 + 100))}
    built = built_by(next(item for item in plan.items if item.task is None))
    assert (built.encoder.position_embedding_type, built.encoder.kinds) == ("rotary", (FULL, SLIDING))


def test_a_language_model_pays_for_a_prediction_of_every_token(tmp_path: Path) -> None:
    plan = make_plan(configured(tmp_path, VARIANTS=[("lm", "gin/objectives/lm.gin")]), {})
    assert plan.step_flops == {"lm": 3 * (ENCODER + 2 * 8 * 32 * 16 * (16 + 100))}


def test_a_stage_has_the_schedule_of_the_whole_budget(planned: tuple[ComparisonRun, Plan]) -> None:
    """What the commands of the items say, as the processes will read it."""
    _, plan = planned
    items = {item.name: item for item in plan.items}
    built = {
        name: built_by(items[name]) for name in ("electra/0.2/pretrain", "mlm/1/pretrain", "mlm/0.5/rte", "random/rte")
    }
    first, last = built["electra/0.2/pretrain"], built["mlm/1/pretrain"]
    assert (first.loop.num_train_steps, first.optimizer.num_train_steps, first.optimizer.num_warmup_steps) == (
        17,
        86,
        9,
    )
    assert (last.loop.num_train_steps, last.optimizer.num_train_steps, last.optimizer.num_warmup_steps) == (
        102,
        102,
        10,
    )
    assert (first.optimizer.learning_rate, last.optimizer.learning_rate) == (5e-4, 2e-3)
    assert (first.seed, first.cache, first.encoder) == (last.seed, last.cache, last.encoder)
    tuned, random = built["mlm/0.5/rte"], built["random/rte"]
    assert (tuned.init_from, tuned.model_dir) == ("runs/it/mlm/0.5/pretrain", "runs/it/mlm/0.5/rte")
    assert (random.init_from, random.encoder(), random.num_epochs) == (None, first.encoder, 2)
    assert [tuned.task.task, built_by(items["mlm/0.5/mine"]).task.task] == ["rte", "sst2"]
    assert list(tuned.seeds) == [0, 1, 2]


def test_a_task_may_be_a_probe_of_the_frozen_encoder() -> None:
    tasks = [("rte", "EPOCHS = 2"), ("probe_words", "DATA_DIR = 'conll2000'")]
    run = configured(Path("runs/it"), TASKS=tasks, FINETUNING=["DATA_DIR = 'glue'", "LEARNING_RATE = 1e-3"])
    plan = make_plan(run, {})
    items = {item.name: item for item in plan.items}
    probe, random = items["mlm/0.5/probe_words"], items["random/probe_words"]
    assert (probe.arguments[0], probe.needs) == ("probe", "mlm/0.5/pretrain")
    built, sizes = built_by(probe), built_by(random)
    assert (built.task.task, built.task.data_dir, list(built.seeds)) == ("words", "conll2000", [0, 1, 2])
    assert (built.init_from, built.model_dir) == ("runs/it/mlm/0.5/pretrain", "runs/it/mlm/0.5/probe_words")
    assert (sizes.init_from, sizes.encoder().hidden_size, sizes.vocab_file) == (None, 16, "vocab.txt")
    assert built_by(items["mlm/0.5/rte"]).task.data_dir == "glue"


def built_by(item: WorkItem) -> Any:
    """What an item's process builds of its arguments."""
    command, *flags = item.arguments
    files = [flag.removeprefix("--gin_file=") for flag in flags if flag.startswith("--gin_file=")]
    bindings = [flag.removeprefix("--gin.") for flag in flags if flag.startswith("--gin.")]
    kind = {"pretrain": PretrainingRun, "finetune": FinetuningRun, "probe": ProbeRun}[command]
    return gin_files.build(kind, files, bindings, search_paths=[])


def test_a_cool_down_branches_off_the_trunk_at_each_fraction(tmp_path: Path) -> None:
    """Of 17, 43 and 86 steps the last 3, 9 and 17 cool down; before them all runs are one, with a constant rate."""
    plan = make_plan(configured(tmp_path, VARIANTS=["electra"], COOL_DOWN=0.2, RANDOM_BASELINE=False), {})
    stages = [item for item in plan.items if item.task is None]
    assert [(item.name, item.role, item.steps, item.needs) for item in stages] == [
        ("electra/0.2/trunk", TRUNK, 14, None),
        ("electra/0.2/pretrain", COMPARED, 17, "electra/0.2/trunk"),
        ("electra/0.5/trunk", TRUNK, 34, "electra/0.2/trunk"),
        ("electra/0.5/pretrain", COMPARED, 43, "electra/0.5/trunk"),
        ("electra/1/trunk", TRUNK, 69, "electra/0.5/trunk"),
        ("electra/1/pretrain", COMPARED, 86, "electra/1/trunk"),
    ]
    assert {item.needs for item in plan.items if item.task is not None} == {
        f"electra/{fraction}/pretrain" for fraction in (0.2, 0.5, 1)
    }
    built = {item.name: built_by(item) for item in stages}
    # The warm-up is a tenth of the shortest finished run: 2 steps.
    rates = {name: [float(learning_rate(run.optimizer, step)) for step in range(86)] for name, run in built.items()}
    for item in stages:
        run = built[item.name]
        assert (run.loop.num_train_steps, run.schedule_steps, run.weight_schedule.num_train_steps) == (
            item.steps,
            86,
            86,
        )
        begun = item.steps if item.role == TRUNK else next(one.steps for one in stages if one.name == item.needs)
        assert rates[item.name][:begun] == pytest.approx([0.0, 2.5e-4, *[5e-4] * (begun - 2)], rel=1e-5), item.name
        if item.role == COMPARED:
            fall = item.steps - begun
            falling = [5e-4 * (fall - step) / fall for step in range(fall)]
            assert rates[item.name][begun : item.steps] == pytest.approx(falling, rel=1e-4), item.name
    # What another item has paid for is counted once: 86 steps of the longest, and the falls of the others.
    assert sum(own_work(stages).values()) == (86 + 9 + 3) * ELECTRA_STEP


def test_several_pre_trainings_have_seeds_and_folders_of_their_own(tmp_path: Path) -> None:
    macros = {"VARIANTS": ["electra"], "TASKS": ["rte"], "RANDOM_BASELINE": False, "FRACTIONS": (0.5, 1.0)}
    plan = make_plan(configured(tmp_path, **macros, PRETRAINING_SEEDS=2, SEED=5), {})
    assert [(item.name, item.seed) for item in plan.items if item.task is None] == [
        ("electra/0.5/pretrain", 5),
        ("electra/0.5-seed6/pretrain", 6),
        ("electra/1/pretrain", 5),
        ("electra/1-seed6/pretrain", 6),
    ]
    items = {item.name: item for item in plan.items}
    assert built_by(items["electra/1-seed6/pretrain"]).seed == 6
    # Fine-tuning seeds are the same for all.
    assert list(built_by(items["electra/1-seed6/rte"]).seeds) == [5, 6, 7]
    # With one pre-training the folders are those of earlier versions, and the first seed keeps them.
    alone = make_plan(configured(tmp_path, **macros, SEED=5), {})
    assert {item.name for item in alone.items} == {name for name in items if "seed6" not in name}


def test_trials_come_first_and_decide_what_is_compared(tmp_path: Path) -> None:
    macros = {"VARIANTS": ["electra", ("mlm", "gin/objectives/mlm.gin")], "FRACTIONS": (1.0,), "TASKS": ["rte", "cola"]}
    run = configured(tmp_path, **macros, TUNE=((1e-3, 2e-3), (0.05, 0.5)), TUNE_SHARE=0.25, RANDOM_BASELINE=False)
    plan = make_plan(run, {})
    assert [item.name for item in plan.items[:3]] == [
        "electra/tune/0.001-0.05/pretrain",
        "electra/tune/0.001-0.05/rte",
        "electra/tune/0.001-0.5/pretrain",
    ]
    assert (len(plan.items), {item.role for item in plan.items}, {item.task for item in plan.items}) == (
        16,
        {TUNING},
        {None, "rte"},
    )
    assert [item.name for item in plan.pending] == [
        f"{name}/1/{task}" for name in ("electra", "mlm") for task in ("pretrain", "rte", "cola")
    ]
    # A quarter of 1e9 FLOPs is 21.5 steps: a run of its own, with a seed that no compared run has.
    trial = built_by(next(item for item in plan.items if item.name == "electra/tune/0.002-0.5/pretrain"))
    assert (trial.loop.num_train_steps, trial.optimizer.num_train_steps, trial.schedule_steps) == (21, 21, 21)
    assert (trial.optimizer.learning_rate, trial.optimizer.num_warmup_steps, trial.seed) == (2e-3, 10, 1)
    tuned = make_plan(run, {"mlm": GridPoint(2e-3, 0.05)})
    assert [item.name for item in tuned.items[16:]] == ["mlm/1/pretrain", "mlm/1/rte", "mlm/1/cola"]
    assert {item.variant for item in tuned.pending} == {"electra"}
    best = built_by(tuned.items[16])
    assert (best.optimizer.learning_rate, best.optimizer.num_warmup_steps, best.seed) == (2e-3, 5, 0)


@pytest.mark.parametrize(("stage", "flops"), [("a", 3.6e14), ("b", 3.72e15)])
def test_the_stages_of_the_design_cost_what_it_says(stage: str, flops: float) -> None:
    """The FLOPs of an arm with its tuning, of docs/efficiency/design.md; trunks are paid for once."""
    bindings = [
        "MODEL_DIR='run'",
        "CORPUS='text'",
        "TOKENIZER='vocab.txt'",
        "VARIANTS=[('mlm', 'gin/objectives/mlm.gin')]",
    ]
    run = gin_files.build(ComparisonRun, [f"gin/runs/stage_{stage}.gin"], bindings, search_paths=[])
    plan = make_plan(run, {})
    items = [*plan.items, *plan.pending]
    work = own_work(items)
    assert sum(work[item.name] for item in items if item.task is None) == pytest.approx(flops, rel=0.01)
    assert run.primary == "probe_chunk"


def test_gin_files_are_looked_for_where_the_command_says(tmp_path: Path) -> None:
    (tmp_path / "warm.gin").write_text("DROPOUT = 0.25\n")
    macros = MACROS | {"VARIANTS": [("warm", "gin/objectives/mlm.gin", "warm.gin")]}
    bindings = [f"{name}={value!r}" for name, value in ({"MODEL_DIR": "run"} | macros).items()]
    run = gin_files.build(ComparisonRun, ["gin/runs/compare.gin"], bindings, search_paths=[str(tmp_path), "elsewhere"])
    stage = next(item for item in make_plan(run, {}).items if item.task is None)
    assert f"--gin_search_paths={tmp_path},elsewhere" in stage.arguments
    assert stage.settings["EncoderConfig.hidden_dropout_prob"] == "0.25"
    # Its macro stands for another.
    assert stage.settings["EncoderConfig.attention_probs_dropout_prob"] == "0.25"


def test_what_is_ready(planned: tuple[ComparisonRun, Plan]) -> None:
    _, plan = planned
    names = [item.name for item in ready(plan.items, done=(), begun=())]
    assert names == ["random/rte", "random/mine", "electra/0.2/pretrain", "mlm/0.2/pretrain"]
    done = {"random/rte", "electra/0.2/pretrain", "electra/0.2/mine"}
    names = [item.name for item in ready(plan.items, done=done, begun={"random/mine"})]
    assert names == ["electra/0.2/rte", "mlm/0.2/pretrain", "electra/0.5/pretrain"]
    # What failed counts as begun: what needs it is not begun, and the rest goes on.
    names = [item.name for item in ready(plan.items, done=done, begun={"random/mine", "electra/0.5/pretrain"})]
    assert names == ["electra/0.2/rte", "mlm/0.2/pretrain"]


def work(name: str, flops: float, needs: str | None, task: str | None = None) -> WorkItem:
    return WorkItem(
        name=name,
        variant=name[0],
        role=COMPARED,
        seed=0,
        fraction=1.0,
        task=task,
        folds=1,
        arguments=(),
        settings={},
        steps=1,
        flops=flops,
        needs=needs,
        point=None,
    )


def test_time_left() -> None:
    items = [
        work("a/1", 10.0, None),
        work("a/1/x", 10.0, "a/1", "x"),
        work("a/2", 30.0, "a/1"),
        work("a/2/x", 30.0, "a/2", "x"),
        work("b/1", 10.0, None),
    ]
    assert seconds_left(items, {}, processes=1) == (0.0, [item.name for item in items])
    # A quarter of ten FLOPs took five seconds: two a FLOP, 15 and 20 more of a, and b as slow as a.
    under_way = {"a/1": Timing(5.0, 0.25, 0.75)}
    assert seconds_left(items, under_way, processes=1) == (15 + 40 + 20, ["a/1/x", "a/2/x"])
    # Each variant has its own speed, and a process that went on with a item did only its share of it.
    done = {"a/1": Timing(5.0, 0.5, 0.0), "b/1": Timing(40.0, 1.0, 0.0), "a/1/x": Timing(7.0, 1.0, 0.0)}
    assert seconds_left(items, done, processes=1) == (20 + 7, [])
    # Side by side, but none shorter than its longest item.
    assert seconds_left(items, done, processes=2) == (20, [])


def test_a_processs_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n$ electra pretrain\nelectra: an older mistake\n")
    assert last_words(log) == "electra: an older mistake"
    with log.open("a") as stream:
        stream.write("\n$ electra pretrain\nstep 1\n")
    assert last_words(log) == "step 1"
    with log.open("a") as stream:
        stream.write("electra: it is full\nand more\n\n")
    assert last_words(log) == "electra: it is full"


def test_each_process_has_its_gpu_or_its_part_of_one() -> None:
    assert gpu_share(0, 1, ["0", "1"]) == {}
    assert gpu_share(3, 4, []) == {}
    assert [gpu_share(index, 2, ["4", "7"]) for index in range(2)] == [
        {"CUDA_VISIBLE_DEVICES": "4"},
        {"CUDA_VISIBLE_DEVICES": "7"},
    ]
    # Three on two: the first is shared.
    shared = [gpu_share(index, 3, ["0", "1"]) for index in range(3)]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shared] == ["0", "1", "0"]
    assert [share.get("XLA_PYTHON_CLIENT_MEM_FRACTION") for share in shared] == ["0.45", None, "0.45"]
    # However many share it, they do not ask for more than there is.
    for processes in (7, 16, 150):
        shares = [gpu_share(index, processes, ["0"]) for index in range(processes)]
        assert sum(float(share["XLA_PYTHON_CLIENT_MEM_FRACTION"]) for share in shares) == pytest.approx(0.9, rel=0.01)
