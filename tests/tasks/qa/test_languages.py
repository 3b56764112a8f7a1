"""Scores of answers in other languages than English, worked out by hand from the rules of the official scripts."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.catalog import make_task, task_from_facts
from electra_jax.tasks.qa import metrics
from electra_jax.tasks.qa.languages import cmrc_tokens, mlqa_normalized, recognised_metric
from electra_jax.tasks.qa.task import QATask
from electra_jax.tasks.scoring import score_predictions
from electra_jax.tasks.vocabulary import Vocabulary
from support.finetuned_model import QA, TOKENS
from support.tiny_model import task_options

VOCABULARY = Vocabulary(TOKENS, lowercase=True, strip_accents=True)
CHINESE = "小镇博物馆建于1901年，位于河边，馆长是王小明。"


@pytest.mark.parametrize(
    ("name", "gold", "prediction", "exact", "f1"),
    [
        # 3 of 3 characters, 3 of 5: 2 x 0.6 / 1.6.
        ("cmrc2018", "王小明", "馆长王小明", 0, 0.75),
        ("squad", "王小明", "馆长王小明", 0, 0.0),
        # The longest run that both share counts, which is one character.
        ("cmrc2018", "甲乙丙丁", "甲丙乙丁", 0, 0.25),
        ("cmrc2018", "《红楼梦》", "红楼梦。", 1, 1.0),
        ("cmrc2018", "1901年", "1901", 0, 2 / 3),
        ("cmrc2018", "GB-2312 Code", "gb2312 code", 1, 1.0),
        ("cmrc2018", "山", "水", 0, 0.0),
        # 2 of 2 characters, 2 of 4.
        ("korquad", "서울", "서울에서", 0, 2 / 3),
        ("korquad", "《서울》 특별시", "서울 특별시.", 1, 1.0),
        # Characters are a bag, and spaces are none of them.
        ("korquad", "서울 특별시", "특별시서울", 0, 1.0),
        ("squad", "서울", "서울에서", 0, 0.0),
        ("mlqa_en", "the «River»", "river", 1, 1.0),
        ("mlqa_de", "die große Stadt", "große Stadt!", 1, 1.0),
        ("mlqa_de", "die große Stadt", "der Stadt", 0, 2 / 3),
        ("mlqa_es", "el río", "¿Río?", 1, 1.0),
        ("mlqa_vi", "của Việt Nam", "Việt Nam", 1, 1.0),
        ("mlqa_ar", "القاهرة", "قاهرة", 1, 1.0),
        ("mlqa_hi", "दिल्ली।", "दिल्ली", 1, 1.0),
        ("mlqa_zh", "北京大学", "北京", 0, 2 / 3),
        ("mlqa_zh", "1901年", "1901 年", 1, 1.0),
        ("characters", "東京タワー", "東京", 0, 4 / 7),
        ("characters", "「東京」", "東京", 1, 1.0),
    ],
)
def test_answers_by_hand(name: str, gold: str, prediction: str, exact: int, f1: float) -> None:
    found = metrics.squad_v1_metrics([("q", [gold])], {"q": prediction}, metric=metrics.METRICS[name])
    assert found == {"exact_match": 100 * exact, "f1": pytest.approx(100 * f1)}


def test_tokens_by_hand() -> None:
    assert cmrc_tokens("于1901年 in New-York, 3.5万") == ["于", "1901", "年", "in", "newyork", ",", "3.5", "万"]
    # As NLTK 3.10 cuts them: signs stand alone, but not a unit, nor an ellipsis.
    assert cmrc_tokens("长3.5km（UN）……——20%(约12,000人).") == [
        *("长", "3.5kmun……", "—", "—", "20", "%", "(", "约", "12,000", "人", ")", ".")
    ]
    assert mlqa_normalized("Im Jahr 1901: die Stadt", "de") == "im jahr 1901 stadt"


def test_squad_2_compares_by_the_metric_too() -> None:
    gold = [("a", ["《王小明》"]), ("b", []), ("c", ["……"])]
    predictions = {"a": "馆长王小明", "b": "", "c": ""}
    exact, overlap = metrics.squad_v2_raw_scores(gold, predictions, metric=metrics.METRICS["cmrc2018"])
    # "…" stands in no list of the script: as one character, it is an answer.
    assert exact == {"a": 0.0, "b": 1.0, "c": 0.0}
    assert overlap == {"a": pytest.approx(0.75), "b": 1.0, "c": 0.0}
    odds = {"a": -1.0, "b": 1.0, "c": 1.0}
    found = metrics.squad_v2_metrics(
        gold, predictions, null_odds=odds, null_threshold=0.0, metric=metrics.METRICS["cmrc2018"]
    )
    assert (found["f1"], found["best_f1"]) == (pytest.approx(100 * 1.75 / 3), pytest.approx(100 * 1.75 / 3))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Ann went to Paris in May.", "squad"),
        ("Die Stadt ist groß.", "squad"),
        (f"{CHINESE} IBM, Paris", "cmrc2018"),
        ("서울은 大韓民國의 수도이다", "korquad"),
        ("東京都は日本の首都である", "characters"),
        ("กรุงเทพมหานคร", "characters"),
        ("القاهرة عاصمة مصر", "mlqa_ar"),
        ("दिल्ली भारत की राजधानी है", "mlqa_hi"),
        ("1901 - 1902", "squad"),
        ("", "squad"),
    ],
)
def test_the_script_of_the_text_tells_the_metric(text: str, name: str) -> None:
    assert recognised_metric([text]) == name


def chinese_options(folder: Path, **changes: Any) -> Any:
    """Options of a task of one Chinese question."""
    question = {"id": "q", "question": "馆长是谁？", "answers": [{"text": "王小明", "answer_start": 21}]}
    data = {"data": [{"paragraphs": [{"context": CHINESE, "qas": [question]}]}]}
    (folder / "train.json").write_text(json.dumps(data))
    file = str(folder / "train.json")
    return task_options("qa", train_file=file, dev_file=file, **changes)


def test_a_task_has_the_metric_of_its_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert CHINESE[21:24] == "王小明"
    with caplog.at_level(logging.WARNING):
        task = make_task(chinese_options(tmp_path), VOCABULARY)
    assert isinstance(task, QATask)
    assert task.metric == "cmrc2018"
    assert caplog.messages == [
        "answers are compared as 'cmrc2018' compares them, by the script of the text: QA_METRIC sets another"
    ]
    rebuilt = task_from_facts(task.describe(), VOCABULARY)
    assert isinstance(rebuilt, QATask)
    assert rebuilt.metric == "cmrc2018"
    (tmp_path / "predicted.json").write_text('{"q": "馆长王小明"}')
    predicted = str(tmp_path / "predicted.json")
    for changes, f1 in (({}, 75.0), ({"qa_metric": "squad"}, 0.0), ({"qa_metric": "characters"}, 75.0)):
        options = chinese_options(tmp_path, **changes)
        scores = score_predictions(options, "dev", predicted, null_odds_file=None)
        assert scores == {"exact_match": 0.0, "f1": pytest.approx(f1)}


def test_the_metric_of_the_model_holds_until_another_is_set(tmp_path: Path) -> None:
    for facts, changes, name in (
        (QA, {}, "squad"),
        (QA | {"metric": "korquad"}, {}, "korquad"),
        (QA | {"metric": "korquad"}, {"qa_metric": "mlqa_zh"}, "mlqa_zh"),
    ):
        task = make_task(chinese_options(tmp_path, **changes), VOCABULARY, recorded=facts)
        assert isinstance(task, QATask)
        assert task.metric == name
    with pytest.raises(UserError, match="QA_METRIC is 'cmrc': it must be one of squad, cmrc2018, korquad, mlqa_en"):
        make_task(chinese_options(tmp_path, qa_metric="cmrc"), VOCABULARY)
