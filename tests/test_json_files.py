"""JSON that is damaged or hostile ends in one sentence that names the file, the place in it and a remedy."""

from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pytest

from electra_jax.errors import UserError
from electra_jax.json_files import parse_json, read_json


class Row(TypedDict):
    step: int
    scores: dict[str, float | None]
    note: NotRequired[str]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "a.json is not JSON (Expecting property name enclosed in double quotes, column 2): do it"),
        (b'{\n"step": }', "a.json is not JSON (Expecting value, line 2, column 9): do it"),
        (b"", "a.json is not JSON (Expecting value, column 1): do it"),
        (b"\xff", "a.json is not UTF-8 at byte 0: do it"),
        (b"[" * 100_000, "a.json is JSON that nests too deeply to be read: do it"),
        (b"9" * 5000, "a.json cannot be read (Exceeds the limit (4300 digits) for integer string conversion"),
        (b"[]", "a.json: it is [], and must be an object: do it"),
        (b"{}", "a.json: it has no scores, step: do it"),
        (b'{"step": 1.0, "scores": {}}', "a.json: step is 1.0, and must be int: do it"),
        (b'{"step": true, "scores": {}}', "a.json: step is True, and must be int: do it"),
        (b'{"step": 1, "scores": {"loss": [1]}}', "a.json: scores.loss is [1], and must be float: do it"),
        (b'{"step": 1, "scores": {}, "note": 3}', "a.json: note is 3, and must be str: do it"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_json(path, Row, remedy="do it")
    assert str(refused.value).startswith(f"{tmp_path}/{sentence}")
    assert "\n" not in str(refused.value)


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json cannot be read \(No such file or directory\): restore the file"):
        read_json(tmp_path / "none.json", Any)
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_json(tmp_path, Any)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ('{"step": 1, "scores": {"loss": null, "f1": 2}, "more": []}', Row, None),
        ("[[1, 2], []]", list[list[int]], [[1, 2], []]),
        ("3", float, 3),
        ("null", dict[str, int] | None, None),
        ('{"a": {"b": 1}}', dict[str, Any], {"a": {"b": 1}}),
    ],
)
def test_what_is_right_is_returned(text: str, kind: Any, value: Any) -> None:
    found = parse_json(text, kind, "here")
    assert found == (value if kind is not Row else {"step": 1, "scores": {"loss": None, "f1": 2}, "more": []})
