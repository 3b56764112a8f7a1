"""The report page: does it say what the files say, and can no token or record break it?"""

import dataclasses
import json
import math
import re
import types
from pathlib import Path
from typing import Any

import pytest

from electra_jax.commands.evaluate import write as write_evaluation
from electra_jax.errors import UserError
from electra_jax.monitoring.health_checks import constant_guess_loss
from electra_jax.reports.charts import Series, line_chart, nice_ticks, tick_texts
from electra_jax.reports.passages import read_passage, spacing
from electra_jax.reports.pretraining import write_report
from electra_jax.reports.summary import course_text
from support.healthy_runs import SMALL
from support.pages import Page

GOOD = {
    "loss": 14.0,
    "generator_loss": 4.0,
    "discriminator_loss": 0.2,
    "generator_accuracy": 0.3,
    "discriminator_accuracy": 0.95,
    "unreplaced_share": 0.93,
    "discriminator_recall": 0.4,
    "discriminator_precision": 0.7,
    "discriminator_auc": 0.8,
}


def passage(**columns: list[Any]) -> dict[str, list[Any]]:
    """Six tokens: replaced and caught, replaced and missed, guessed right, a false alarm, and [CLS], [PAD]."""
    return {
        "tokens": ["[CLS]", "dog", "ran", "##ing", "far", "[PAD]"],
        "originals": ["[CLS]", "cat", "sat", "##ing", "far", "[PAD]"],
        "masked": [False, True, True, True, False, False],
        "replaced": [False, True, True, False, False, False],
        "probability": [0.1, 0.9, 0.5, 0.2, 0.6, 0.99],
    } | columns


def write_run(
    folder: Path, *, passages: list[dict[str, list[Any]]], metrics: dict[str, float], record: dict[str, Any] | None
) -> None:
    steps = [{"step": step, "split": split, **metrics} for step in (10, 20, 30) for split in ("train", "validation")]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    evaluation = {
        "step": 30,
        "metrics": metrics,
        "most_frequent_token": {"token": "the", "rate": 0.054},
        "num_examples": 7,
        "corpus": "notes & <letters>",
        "vocab_file": "vocab.txt",
        "parameters": {"generator": 1000, "discriminator": 2_000_000},
        "passages": passages,
        "setting": dataclasses.asdict(SMALL),
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    if record is not None:
        (folder / "run.json").write_text(json.dumps(record))


def read_page(folder: Path) -> str:
    return Path(write_report(str(folder))).read_text("utf-8")


def test_hostile_tokens_and_records_stay_text(tmp_path: Path) -> None:
    evil = "</span><script>alert(\"&amp;')</script><img src=x onerror=y>"
    tokens = [evil, evil, evil, evil, evil, evil]
    write_run(
        tmp_path,
        passages=[passage(tokens=tokens, originals=[evil + "o", *tokens[1:]])],
        metrics=GOOD,
        record={"command": evil, evil: {evil: [evil]}},
    )
    (tmp_path / "config.gin").write_text(evil)
    page = Page(read_page(tmp_path))
    assert not {"script", "img"} & set(page.tags)
    assert evil in page.text
    assert "notes & <letters>" in page.text


def test_page_fetches_nothing_and_keeps_what_utf8_cannot_hold(tmp_path: Path) -> None:
    odd = passage(tokens=["\x00", "\ud800", "", "שלום", "😀", "x"])
    write_run(tmp_path, passages=[odd], metrics=GOOD, record={"command": "run \ud800"})
    page = Page(read_page(tmp_path))
    assert not {"link", "script", "img", "iframe", "object", "image", "use"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "href", "srcset", "xlink:href")]
    style = read_page(tmp_path).split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "שלום" in page.text
    assert not list(tmp_path.glob("*.partial"))


def test_caption_counts_are_those_of_the_passage(tmp_path: Path) -> None:
    counts = read_passage(passage())
    assert (len(counts.tokens), counts.masked, counts.replaced, counts.caught, counts.false_alarms) == (5, 3, 2, 1, 1)
    write_run(tmp_path, passages=[passage()], metrics=GOOD, record=None)
    text = Page(read_page(tmp_path)).text
    assert "Replaced 2, caught 1" in text
    assert "1 false alarm " in text
    assert "of 3 hidden tokens the generator restored 1" in text


def test_each_token_shows_its_kind_probability_and_original(tmp_path: Path) -> None:
    write_run(tmp_path, passages=[passage()], metrics=GOOD, record=None)
    html = read_page(tmp_path).split('class="passages"')[1]
    found = re.findall(
        r'<span class="([^"]*)" style="--p:([\d.]+)" title="([^"]*)">([^<]*)</span>(?:<s>(\w+)</s>)?', html
    )
    assert [(kind, float(p), shown, struck) for kind, p, _, shown, struck in found] == [
        ("t special", 0.1, "cls", ""),
        ("t rep", 0.9, "dog", "cat"),
        ("t rep missed", 0.5, "ran", "sat"),
        ("t hit", 0.2, "ing", ""),
        ("t", 0.6, "far", ""),
    ]
    assert "90% likely replaced; was cat, the generator wrote dog" in found[1][2]


def test_replaced_word_pieces_keep_the_shape_of_the_original(tmp_path: Path) -> None:
    pieces = passage(
        tokens=["[CLS]", "##ed", "the", "##s", "far", "[PAD]"],
        originals=["[CLS]", "un", "##able", "##ness", "far", "[PAD]"],
        replaced=[False, True, True, True, False, False],
    )
    write_run(tmp_path, passages=[pieces], metrics=GOOD, record=None)
    text = read_page(tmp_path).split('<figure class="passage">')[1]
    assert re.sub(r" (style|title|class)=\"[^\"]*\"", "", text).startswith(
        '<p dir="auto"><span>cls</span> <span>-ed</span><s>un</s><span>the</span><s>-able</s>'
        "<span>s</span><s>-ness</s> <span>far</span></p>"
    )


def test_tokens_that_begin_with_their_spaces_are_set_as_they_say(tmp_path: Path) -> None:
    pieces = passage(
        tokens=["<s>", "The", " dog", "s", " ", "</s>"],
        originals=["<s>", "The", " cat", "s", " ", "</s>"],
        replaced=[False, False, True, False, False, False],
    )
    write_run(tmp_path, passages=[pieces], metrics=GOOD, record=None)
    text = read_page(tmp_path).split('<figure class="passage">')[1]
    assert re.sub(r" (style|title|class)=\"[^\"]*\"", "", text).startswith(
        '<p dir="auto"><span>cls</span><span>The</span> <span>dog</span><s>cat</s><span>s</span> '
        "<span>\N{OPEN BOX}</span><span>sep</span></p>"
    )


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("he didn ' t , she said .", "he didn't, she said."),
        ("un ##believ ##able ( see [ 3 ] ) !", "unbelievable (see [3])!"),
        ('a " quoted word " here', 'a "quoted word" here'),
        ("` ` x ` ` is well - known", "``x`` is well-known"),
        ("costs $ 3 . 5 or 1 , 000", "costs $3.5 or 1,000"),
        ("ends . 5 begins", "ends. 5 begins"),
        ("## alone", "## alone"),
    ],
)
def test_tokens_read_as_text(tokens: str, text: str) -> None:
    pieces = tokens.split()
    spaces = spacing(pieces)
    shown = [piece[2:] if piece.startswith("##") and len(piece) > 2 else piece for piece in pieces]
    assert "".join(" " * space + piece for space, piece in zip(spaces, shown, strict=True)) == text


def test_curves_hold_every_point_and_break_at_a_missing_one() -> None:
    points = [(step, math.nan if step == 500 else math.sin(step / 50)) for step in range(1000)]
    chart = line_chart("sine", [Series("training", "train", points)], str)
    assert chart is not None
    moves = re.findall(r"([ML])([\d.]+),([\d.]+)", chart.lines[0].path)
    assert len(moves) == 999
    assert [index for index, move in enumerate(moves) if move[0] == "M"] == [0, 500]
    rightmost = [float(x) for _, x, _ in moves]
    assert rightmost == sorted(rightmost)
    assert float(moves[79][2]) < float(moves[236][2])  # the crest stands above the trough


@pytest.mark.parametrize(("steps", "ticks"), [([67], ["67", "68"]), ([10, 12], ["10", "11", "12"]), ([0, 3000], None)])
def test_every_tick_is_a_whole_step(steps: list[int], ticks: list[str] | None) -> None:
    chart = line_chart("loss", [Series("training", "train", [(step, 0.5) for step in steps])], str)
    assert chart is not None
    assert [tick.text for tick in chart.x_ticks] == (ticks or ["0", "1k", "2k", "3k"])


def test_each_validation_value_can_be_read_off_a_curve(tmp_path: Path) -> None:
    write_run(tmp_path, passages=[passage()], metrics=GOOD, record=None)
    rows = [{"step": s, "split": "validation", **GOOD, "discriminator_auc": s / 100} for s in (40, 60, 50, 60)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 70, "sp')
    text = read_page(tmp_path)
    assert re.findall(r"<title>validation, step (\d+): (0\.[456]00)</title>", text) == [
        ("40", "0.400"),
        ("50", "0.500"),
        ("60", "0.600"),
    ]


def test_ticks_are_round_and_enclose_the_values() -> None:
    assert nice_ticks(0.87, 0.953, 5) == pytest.approx([0.85, 0.875, 0.9, 0.925, 0.95, 0.975])
    assert nice_ticks(0.0, 0.0, 5)[0] == 0
    for low, high in ((-3.0, 8.1), (5.0, 5.0), (1e-5, 3e-5)):
        ticks = nice_ticks(low, high, 5)
        assert ticks[0] <= low
        assert ticks[-1] >= high * (1 - 1e-9)
        assert len(ticks) <= 8
    assert tick_texts(["0.500 %", "10.250 %"]) == ["0.50 %", "10.25 %"]
    assert tick_texts(["0.0 %", "100.0 %"]) == ["0 %", "100 %"]


def test_figures_stand_beside_what_they_must_be_compared_with(tmp_path: Path) -> None:
    write_run(tmp_path, passages=[passage()], metrics=GOOD, record=None)
    text = Page(read_page(tmp_path)).text.replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "restores 30.0 % of the hidden tokens (always answering “the”, the most frequent one, would restore 5.4 %)"
        in text
    )
    assert "accuracy of 95.0 % must be read beside 93.0 %" in text
    assert "It learned." in text
    assert "Read with care" not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"discriminator_auc": 0.51}, "near 0.5"),
        ({"discriminator_auc": None}, "No AUC was recorded"),
        ({"discriminator_recall": 0.0, "discriminator_accuracy": 0.93}, "practically every token original"),
        ({"discriminator_accuracy": 0.92}, "not above the 93.0"),
        ({"generator_accuracy": 0.06}, "hardly better"),
    ],
)
def test_failures_are_said_in_words(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    write_run(tmp_path, passages=[], metrics=GOOD | change, record=None)
    page = Page(read_page(tmp_path))
    text = page.text
    # The first is found in the training lines too: by the health checks. Neither verdict is green.
    warned = change == {"discriminator_auc": 0.51}
    assert ("Read with care." if warned else "It has learned little so far.") in text
    first = next(value for name, value in page.attributes if name == "class" and str(value).startswith("verdict"))
    assert first == ("verdict warn" if warned else "verdict plain")
    assert words in text
    assert "It learned." not in text
    assert "begun to learn" not in text


def test_the_steps_of_averaged_weights_are_named(tmp_path: Path) -> None:
    write_run(tmp_path, passages=[], metrics=GOOD, record=None)
    assert "mean of the weights" not in read_page(tmp_path)
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation | {"mean_of_steps": [30, 20]}))
    text = Page(read_page(tmp_path)).text
    assert "On 7 held-out passages, read with the mean of the weights of steps 20, 30, the generator" in text


def test_an_evaluation_with_a_metric_that_is_not_finite_is_json_and_has_a_page(tmp_path: Path) -> None:
    write_run(tmp_path, passages=[], metrics=GOOD, record=None)
    path = tmp_path / "evaluation.json"
    evaluation = json.loads(path.read_text())
    metrics = dict.fromkeys(evaluation["metrics"], math.nan)
    write_evaluation(types.SimpleNamespace(model_dir=str(tmp_path)), evaluation | {"metrics": metrics})
    written = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert set(written["metrics"].values()) == {None}
    assert (tmp_path / "report.html").exists()


def test_a_fallen_auc_is_said() -> None:
    curve = [{"step": step, "discriminator_auc": auc} for step, auc in ((1, 0.6), (2, 0.86), (3, 0.8), (4, None))]
    assert "from 0.600 to 0.800 (its best, 0.860, was at step 2)" in course_text(curve[:3])
    assert "from 0.600 to – (its best, 0.860, was at step 2)" in course_text(curve)
    assert "from 0.600 to 0.860, " in course_text(curve[:2])
    assert "step 2 the validation" in course_text(curve[:2])
    assert "step 2 (epoch 78.04) the validation" in course_text([curve[0], {**curve[1], "epoch": 78.04}])


def test_values_that_are_nearly_equal_are_not_written_alike() -> None:
    chart = line_chart("recall", [Series("training", "train", [(1, 0.004), (2, 0.004)])], lambda x: f"{100 * x:.1f} %")
    assert chart is not None
    assert [tick.text for tick in chart.y_ticks] == ["0.2 %", "0.3 %", "0.4 %", "0.5 %", "0.6 %"]


def test_constant_guess_loss_is_the_entropy() -> None:
    assert constant_guess_loss(0.5) == pytest.approx(math.log(2))
    assert constant_guess_loss(0.9) == pytest.approx(0.325083, abs=1e-6)
    assert math.isnan(constant_guess_loss(1.0))


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluation.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_run(tmp_path, passages=[], metrics=GOOD, record=None)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=re.escape(f"no {name} in {tmp_path}")):
        write_report(str(tmp_path))


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    write_run(tmp_path, passages=[], metrics=GOOD, record=None)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "split": "train"}\nnonsense\n{}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        write_report(str(tmp_path))


def test_an_evaluation_without_metrics_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, passages=[], metrics=GOOD, record=None)
    (tmp_path / "evaluation.json").write_text('{"step": 3}')
    with pytest.raises(UserError, match="it has no metrics, passages, setting"):
        write_report(str(tmp_path))


def test_sparse_metrics_still_make_a_page(tmp_path: Path) -> None:
    write_run(tmp_path, passages=[passage()], metrics={"loss": 3.0}, record={})
    evaluation = {"step": 5, "metrics": {"loss": 3.0}, "passages": [], "setting": dataclasses.asdict(SMALL)}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    text = Page(read_page(tmp_path)).text
    assert "Nothing was recorded for this curve." in text
    assert "nan" not in text


def test_two_fine_tunings_of_the_run_are_compared_on_its_page(tmp_path: Path) -> None:
    write_run(tmp_path, passages=[passage()], metrics=GOOD, record=None)
    assert "What pre-training is worth" not in read_page(tmp_path)
    for name, values in (("pretrained", (62.0, 61.0)), ("random", (48.0, 47.0))):
        folder = tmp_path / "finetune" / name
        folder.mkdir(parents=True)
        seeds = [
            {"seed": i, "steps": 9, "metrics": {"accuracy": value}, "failed": None} for i, value in enumerate(values)
        ]
        shared = {"task": "package_of", "kind": "classification", "main_metric": "accuracy", "num_examples": {"dev": 9}}
        (folder / "results.json").write_text(
            json.dumps({**shared, "seeds": seeds, "summary": {}, "num_failed": 0, "best_seed": 0})
        )
    assert (
        "Pre-training helps. The median accuracy is 61.50 from pre-trained and 47.50" in Page(read_page(tmp_path)).text
    )
