"""Documents point at what is there, say no score that no JSON holds, and name every switch of the reference."""

import dataclasses
import functools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gin import config as gin_internals

from electra_jax.config import gin_files
from electra_jax.config.finetuning import FinetuningRun, HeadOptions
from electra_jax.config.pretraining import CacheConfig, CorpusConfig, PretrainingRun
from electra_jax.ranges import declared
from electra_jax.tasks.options import TaskOptions
from electra_jax.training.optimizer import OptimizerConfig
from support.code_map import PAGE, code_map

ROOT = Path(__file__).parent.parent
# Comparisons that fine-tuned two arms of stage B, by the fraction of the budget.
TUNED = {0.1: "stage_b_tuned.json", 0.2: "stage_b_tuned_2e14.json"}
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", path.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (path.parent / link).exists()] == []


def test_every_score_of_a_comparison_is_in_the_json_named_above_its_table() -> None:
    """A row names its variant in its first cell; each "median (lowest to highest)" after it must be one of that's."""
    stated = 0
    for page in DOCUMENTS:
        for names, table in re.findall(r"<!-- scores: (.+) -->\n((?:\|.*\n)+)", page.read_text()):
            scores = [
                score for name in names.split() for score in json.loads((page.parent / name).read_text())["scores"]
            ]
            for row in table.splitlines()[2:]:
                first, *cells = [cell.strip() for cell in row.strip("|").split("|")]
                variant = "random" if first == "random weights" else first.strip("`")
                held = {
                    f"{score['median']:.1f} ({score['lowest']:.1f} to {score['highest']:.1f})"
                    for score in scores
                    if score["variant"] == variant
                }
                found = {cell for cell in cells if "(" in cell}
                assert found <= held, f"{page.name}, {names}, {first}: {found - held} is in no score"
                stated += len(found)
    assert stated > 10


def test_every_number_of_the_ablation_is_that_of_its_runs() -> None:
    """The tables of docs/efficiency.md that name a file of runs and an objective, a row for each arm."""
    page = (ROOT / "docs" / "efficiency.md").read_text()
    found = re.findall(r"<!-- switches: (\S+) (\w+) -->\n((?:\|.*\n)+)", page)
    assert found
    for name, objective, table in found:
        runs = [json.loads(line) for line in (ROOT / "docs" / "efficiency" / name).read_text().splitlines()]
        whole = max(run["flops"] for run in runs)
        for row in table.splitlines()[2:]:
            arm, rate, steps, *cells = [cell.strip() for cell in row.strip("|").split("|")]
            of_arm = [
                run for run in runs if (run["objective"], run["arm"]) == (objective, re.match(r"`(\w+)`", arm)[1])
            ]
            seeds = [run for run in of_arm if run["flops"] == whole]
            tuned = min((run for run in of_arm if run["flops"] < whole), key=lambda run: run["loss"])
            assert [(run["rate"], run["steps"]) for run in seeds] == [(float(rate), int(steps.replace(",", "")))] * 3
            assert tuned["rate"] == float(rate)
            loss = "prediction_loss" if objective == "mlm" else "generator_loss"
            values = [[run[loss] for run in seeds], [max(run["probe"]) for run in seeds]]
            if objective == "electra":
                values.insert(1, [run["discriminator_auc"] for run in seeds])
            for cell, drawn in zip(cells, values, strict=True):
                mean, deviation = map(float, cell.split(" ± "))
                digits = len(cell.split(" ± ")[0].partition(".")[2])
                assert (mean, deviation) == (round(np.mean(drawn), digits), round(np.std(drawn, ddof=1), digits)), row


def test_every_mean_of_a_stage_is_that_of_its_pre_trainings() -> None:
    """The tables that name comparisons and tasks: of each a column for each task at each budget, "mean ± sd (n)"."""
    stated = 0
    for page in DOCUMENTS:
        for names, table in re.findall(r"<!-- means: (.+) -->\n((?:\|.*\n)+)", page.read_text()):
            files = [name for name in names.split() if name.endswith(".json")]
            columns = [
                (comparison, task, fraction)
                for comparison in (json.loads((page.parent / name).read_text()) for name in files)
                for task in names.split()[len(files) :]
                for fraction in comparison["fractions"]
            ]
            for row in table.splitlines()[2:]:
                first, *cells = [cell.strip() for cell in row.strip("|").split("|")]
                variant = {"random weights": "random", "trigram model": "trigram"}.get(first) or first.split("`")[1]
                for (comparison, task, fraction), cell in zip(columns, cells, strict=True):
                    trained = variant in comparison["variants"]
                    drawn = scores_of(comparison, variant, fraction if trained else 0, task)
                    whole = len(comparison["pretraining_seeds"]) if trained else 1
                    assert cell.strip("*") == in_words(drawn, whole), row
                    stated += bool(cell)
                    if trained:
                        rule = comparison["void"]
                        void = rule and all(rule[f"{one:.10g}"][variant] for one in comparison["fractions"])
                        assert ("(void" in first) == bool(void), row
    assert stated > 40


def in_words(drawn: list[float], whole: int) -> str:
    """Return a mean, its standard deviation, and the number of pre-trainings where some are missing."""
    if len(drawn) < 2:
        return f"{drawn[0]:.1f}" if drawn else ""
    missing = "" if len(drawn) == whole else f" ({len(drawn)})"
    return f"{np.mean(drawn):.1f} ± {np.std(drawn, ddof=1):.1f}{missing}"


def test_replaced_token_detection_overtakes_as_the_pages_say() -> None:
    """The leads and two pooled deviations in efficiency.md, and the numbers of README, from the scores of each seed."""
    folder = ROOT / "docs" / "efficiency"
    stage, wider = (json.loads((folder / f"{name}.json").read_text()) for name in ("stage_b", "stage_b_wider"))
    probed = functools.partial(scores_of, stage)
    leads, bounds = zip(
        *(lead(probed("two_tower", at), probed("mlm_30_15", at)) for at in stage["fractions"]), strict=True
    )
    assert all(ahead > bound for ahead, bound in zip(leads, bounds, strict=True))
    page = " ".join((ROOT / "docs" / "efficiency.md").read_text().split())
    said = "by {:.1f}, {:.1f}, {:.1f} and {:.1f} points, where two deviations are {:.1f}, {:.1f}, {:.1f} and {:.1f}."
    assert said.format(*leads, *bounds) in page
    better = scores_of(wider["electra"], "electra", 0.1)
    ahead, bound = lead(probed("two_tower", 0.1), better)
    assert ahead > bound
    assert f"alone, by {ahead:.1f}, where two pooled deviations are {bound:.1f}." in page
    assert f"its three seeds have {in_words(better, 3)} at 10¹⁴" in page
    readme = (ROOT / "README.md").read_text()
    for at in (0.1, 1.0):
        rtd, mlm = (in_words(probed(arm, at), len(probed(arm, at))) for arm in ("two_tower", "mlm_30_15"))
        assert f"{rtd} against {mlm} at 10{'¹⁴' if at == 0.1 else '¹⁵'}" in readme


def test_fine_tuned_it_is_the_other_way_round_as_the_pages_say() -> None:
    """Scores of both arms at a tenth and at a fifth of the budget, probed and fine-tuned, and who leads by how much."""
    folder, arms = ROOT / "docs" / "efficiency", ("two_tower", "mlm_30_15")
    tuned = {at: json.loads((folder / name).read_text()) for at, name in TUNED.items()}
    probed = [[scores_of(tuned[at], arm, at) for arm in arms] for at in tuned]
    scored = [[scores_of(tuned[at], arm, at, "chunk") for arm in arms] for at in tuned]
    ahead, bounds = zip(*(lead(*drawn) for drawn in probed), strict=True)
    behind, tuned_bounds = zip(*(lead(*reversed(drawn)) for drawn in scored), strict=True)
    assert all(first > second for first, second in zip(ahead + behind, bounds + tuned_bounds, strict=True))
    page, readme = (" ".join((ROOT / name).read_text().split()) for name in ("docs/efficiency.md", "README.md"))
    said = "is ahead by {:.1f} and {:.1f} points on the probe (two pooled deviations are {:.1f} and {:.1f})"
    assert said.format(*ahead, *bounds) in page
    said = "and behind by {:.1f} and {:.1f} of F1 when fine-tuned ({:.1f} and {:.1f})"
    assert said.format(*behind, *tuned_bounds) in page
    assert "is ahead by {:.1f} and {:.1f} points of F1.**".format(*behind) in page
    runs = json.loads((ROOT / "docs" / "efficiency" / "stage_b_finetuning.json").read_text())["runs"]
    for arm, (first, _) in zip(arms, scored[0], strict=True):
        found = {(run["learning_rate"], run["epochs"]): run["dev_f1"] for run in runs if run["variant"] == arm}
        row = (found[3e-4, 1], first, found[1e-3, 3], found[3e-3, 1])
        assert f"| `{arm}` | {' | '.join(f'{score:.1f}' for score in row)} |" in page
    sentences = json.loads((ROOT / "docs" / "efficiency" / "stage_b_sentences.json").read_text())["runs"]
    accuracies = {run["task"]: run["accuracy"] for run in sentences}
    assert all(run["accuracy"] == accuracies[run["task"]] for run in sentences)
    assert "accuracy {sst2:.1f}, {mrpc:.1f} and {rte:.1f};".format_map(accuracies) in page
    (towers, mlm), (later_towers, later_mlm) = ([in_words(drawn, 2) for drawn in pair] for pair in scored)
    assert f"an F1 of {mlm} from it and of {towers} from the two towers at 10¹⁴ FLOPs" in readme
    assert f"and of {later_mlm} and {later_towers} at 2 x 10¹⁴ (two seeds each)" in readme


def test_the_layer_that_is_chosen_is_ahead_of_the_last_as_the_page_says() -> None:
    runs = json.loads((ROOT / "docs" / "efficiency" / "stsb_layers.json").read_text())["runs"]
    chosen, last = ([run for run in runs if run["chosen"] is whether] for whether in (True, False))
    before = [
        [one["spearman"] for run in chosen for one in run["before_training"] if (one["layer"], one["pooling"]) == asked]
        for asked in [(layer, "mean") for layer in (1, 2, 3, 4)]
    ]
    after = [[run["spearman"] for run in found] for found in (chosen, last)]
    assert [(run["layer"], run["pooling"]) for run in chosen] == [(1, "mean")] * 2
    assert min(before[0]) > max(before[3]) + 5
    assert min(after[0]) > max(after[1]) + 5
    first, *others = (", ".join(f"{score:.1f}" for score in scores) for scores in before)
    trained, of_last = (", ".join(f"{score:.1f}" for score in scores) for scores in after)
    page = (ROOT / "docs" / "vectors.md").read_text().replace("**", "")
    assert f"| before training | {' | '.join([first, *others])} |" in page
    assert f"| trained on STS-B, two epochs | {trained} | | | {of_last} |" in page


def scores_of(comparison: dict[str, Any], variant: str, fraction: float, task: str = "probe_chunk") -> list[float]:
    """Return the scores of every pre-training of an arm at a fraction, by the probe of chunks or on another task."""
    asked = (variant, fraction, task)
    return [one["mean"] for one in comparison["scores"] if (one["variant"], one["fraction"], one["task"]) == asked]


def lead(first: list[float], second: list[float]) -> tuple[float, float]:
    """Return how far the first's mean is above the second's, and two pooled standard deviations."""
    squares = sum(np.var(drawn) * len(drawn) for drawn in (first, second))
    return np.mean(first) - np.mean(second), 2 * (squares / (len(first) + len(second) - 2)) ** 0.5


def test_the_recipe_that_won_is_the_one_that_was_run() -> None:
    """gin/runs/small_budget.gin against the command that docs/efficiency/stage_b.json has of the arm."""
    stage = json.loads((ROOT / "docs" / "efficiency" / "stage_b.json").read_text())
    command = next(one["command"] for one in stage["checkpoints"] if one["directory"] == "two_tower/1/pretrain")
    arguments = shlex.split(command)
    files = [one.removeprefix("--gin_file=") for one in arguments if one.startswith("--gin_file=")]
    bindings = [one.removeprefix("--gin.") for one in arguments if one.startswith("--gin.")]
    required = [one for one in bindings if one.startswith(("MODEL_DIR=", "CORPUS=", "VOCAB_FILE="))]
    ran = gin_files.build(PretrainingRun, files, bindings, search_paths=[])
    shipped = gin_files.build(PretrainingRun, ["gin/runs/small_budget.gin"], required, search_paths=[])
    # How many checkpoints are kept changes no result.
    assert dataclasses.replace(shipped, loop=dataclasses.replace(shipped.loop, keep=ran.loop.keep)) == ran


def test_the_page_of_differences_names_every_switch_and_no_other() -> None:
    gin_files.parse(["gin/reference.gin"], [], [str(ROOT)])
    bound = {
        f"{selector.split('.')[-1]}.{name}"
        for (_, selector), fields in gin_internals._CONFIG.items()
        for name in fields
    }
    page = (ROOT / "docs" / "differences.md").read_text()
    assert set(re.findall(r"`(\w+(?:Run|Config|Options)\.\w+)`", page)) == bound


# Choices whose default is the original's, or that it has nothing like: names of files and columns, what runs where, and
# what this project adds and leaves off.
AS_PUBLISHED = {
    CorpusConfig: "text_format text_field skip_undecodable deduplicate",
    CacheConfig: "vocab_file lowercase cache_dir allow_unknown word_marks",
    PretrainingRun: "model_dir init_from map_vocabulary generator_kind generator_embeddings embedding_sharing masking "
    "mask_unit "
    "mixture_or_task_name copy_generator freeze_generator packing extend_positions",
    OptimizerConfig: "rule no_decay",
    HeadOptions: "classifier_pooling pooling question_answering",
    FinetuningRun: "model_dir init_from vocab_file lowercase dropout_prng dtype attention remat_policy allow_unknown "
    "selection keep_state",
    TaskOptions: "task source data_dir tfds_data_dir train_file dev_file test_file text_column text_b_column "
    "multi_label main_metric tag_scheme tag_encoding clip_predictions long_texts double_unordered skip_bad_rows "
    "template",
}


@pytest.mark.parametrize("kind", AS_PUBLISHED, ids=lambda kind: kind.__name__)
def test_every_choice_is_a_switch_of_the_reference_or_as_published(kind: type) -> None:
    """A new choice is one or the other: bind the original's in gin/reference.gin, or name it above."""
    gin_files.parse(["gin/reference.gin"], [], [str(ROOT)])
    switched = {
        name
        for (_, selector), fields in gin_internals._CONFIG.items()
        for name in fields
        if selector.endswith(kind.__name__)
    }
    choices = {name for name, field in declared(kind).items() if field.kind in (bool, str, bool | None, str | None)}
    assert choices - switched == set(AS_PUBLISHED[kind].split())


def test_the_page_of_differences_links_each_row_to_its_tests() -> None:
    page = (ROOT / "docs" / "differences.md").read_text()
    rows = [line for line in page.splitlines() if re.match(r"\| (?!behaviour)\w", line)]
    assert len(rows) > 50
    assert [row for row in rows if not re.search(r"\]\(\.\./tests/[\w/]+\.py\)", row)] == []


def test_the_map_of_the_code_is_that_of_the_code() -> None:
    """Written anew by python -m tests.support.code_map."""
    assert PAGE.read_text() == code_map()


def test_every_file_says_in_one_line_what_it_is_for() -> None:
    lines = [line for line in code_map().splitlines() if line.startswith("* `")]
    assert len(lines) > 250
    assert [line for line in lines if not re.fullmatch(r"\* `\w+\.py`: .{10,150}", line)] == []
