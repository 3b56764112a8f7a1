"""A page says one thing of a run: what stands on top and what the section on its health says never disagree."""

import dataclasses
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from electra_jax.monitoring.health import diagnose
from electra_jax.monitoring.history import history_of
from electra_jax.reports.pretraining import write_report
from support.healthy_runs import GOOD, LIKE_PUBLISHED, PUBLISHED, SMALL, Row, between, published_rows, rows
from support.pages import Page

FALLING = [{"discriminator_auc": value} for value in between(0.9, 0.7, 40)]
COURSES = {
    "healthy": rows([{}] * 40),
    "young": rows([{"discriminator_auc": 0.51, "discriminator_recall": 0.0, "generator_accuracy": 0.05}] * 3),
    "at chance for long": rows([{"discriminator_auc": 0.505, "generator_accuracy": 0.1}] * 40, tokens=1e8),
    "one token": rows([{}, *[{"generator_repetition": 0.98}] * 6]),
    "falling": rows(FALLING),
    "falling a little": rows([{"discriminator_auc": value} for value in between(0.86, 0.835, 40)]),
    "published": published_rows()[:120],
}
HELD_OUT: dict[str, dict[str, Any]] = {
    "good": {},
    "nearly chance": {"discriminator_auc": 0.54},
    "chance": {"discriminator_auc": 0.51},
    "no AUC": {"discriminator_auc": None},
    "silent": {"discriminator_recall": 0.0},
    "not above the share": {"discriminator_accuracy": GOOD["unreplaced_share"]},
    "a generator of frequencies": {"generator_accuracy": 0.06},
}


def verdicts(html: str) -> list[tuple[bool, str]]:
    """Whether each verdict of a page is a warning, and its text."""
    found = re.findall(r'<div class="verdict(?: plain|( warn)?)">(.*?)</div>', html, flags=re.DOTALL)
    return [(bool(warning), Page(text).text) for warning, text in found]


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("setting", [SMALL, LIKE_PUBLISHED], ids=["small", "like published"])
def test_the_page_never_contradicts_itself(tmp_path: Path, course: str, setting: Any) -> None:
    lines: list[Row] = COURSES[course]
    validation = [{**line, "split": "validation"} for line in itertools.islice(lines, 0, None, 5)]
    log = "".join(json.dumps(line) + "\n" for line in [*lines, *validation])
    (tmp_path / "metrics.jsonl").write_text(log)
    findings = diagnose(history_of(lines), setting, PUBLISHED)
    for changes in HELD_OUT.values():
        metrics = GOOD | {"discriminator_accuracy": 0.9, "discriminator_precision": 0.7} | changes
        frequent = {"token": "the", "rate": 0.05}
        evaluation = {"step": lines[-1]["step"], "metrics": metrics, "passages": [], "most_frequent_token": frequent}
        evaluation["setting"] = dataclasses.asdict(setting)
        (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
        (top_warns, top), (health_warns, health) = verdicts(Path(write_report(str(tmp_path))).read_text("utf-8"))
        assert top_warns == health_warns == bool(findings), (top, health)
        assert ("Read with care." in top) == ("Something is unusual." in health) == bool(findings)
        assert ("Nothing unusual." in health) == (not findings)
        assert not (findings and re.search(r"It learned|begun to learn", top))
        for finding in findings:
            assert finding.words in top
            assert finding.words in health


def test_the_courses_are_healthy_and_ill() -> None:
    found = {name: diagnose(history_of(lines), SMALL, PUBLISHED) for name, lines in COURSES.items()}
    assert {name for name, findings in found.items() if findings} == {"at chance for long", "one token", "falling"}
