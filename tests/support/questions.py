"""Four questions in the layouts of SQuAD and MRQA, and tasks that read them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from electra_jax.tasks.catalog import make_task
from electra_jax.tasks.qa.task import QATask
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary
from support.tiny_model import task_options

CONTEXT = "The leader was John Smith (1895-1943). He liked double spaces."
OTHER = "Texas is where he was. " * 4 + "Houston was where he did live."
WORDS = "the leader was john smith ( 1895 - 1943 ) . he liked double spaces when did live ? where is texas houston who"
VOCABULARY = Vocabulary([*SPECIAL_TOKENS, *WORDS.split()], lowercase=True, strip_accents=True)

# question, context, answer; None: the context has none
QUESTIONS = [
    ("Who was the leader?", CONTEXT, "John Smith"),
    ("When did he live?", CONTEXT, "1895-1943"),
    ("Where did he live?", OTHER, "Houston"),
    ("Where is the leader?", OTHER, None),
]


def squad(questions: Sequence[tuple[str, str, str | None]], *, labelled: bool = True) -> dict[str, Any]:
    """SQuAD 2.0 as an object; 1.1 if all have an answer."""
    paragraphs = []
    for number, (question, context, answer) in enumerate(questions):
        record: dict[str, Any] = {"id": f"q{number}", "question": question}
        if labelled:
            known = [] if answer is None else [{"text": answer, "answer_start": context.find(answer)}]
            record |= {"answers": known} | ({"is_impossible": True} if answer is None else {})
        paragraphs.append({"context": context, "qas": [record]})
    return {"data": [{"paragraphs": paragraphs}]}


def mrqa(questions: Sequence[tuple[str, str, str]]) -> str:
    """MRQA's lines, with a header."""
    lines: list[dict[str, Any]] = [{"header": {"dataset": "x"}}]
    for number, (question, context, answer) in enumerate(questions):
        start = context.find(answer)
        detected = [{"text": answer, "char_spans": [[start, start + len(answer) - 1]]}]
        entry = {"qid": f"q{number}", "question": question, "answers": [answer], "detected_answers": detected}
        lines.append({"context": context, "qas": [entry]})
    return "".join(json.dumps(line) + "\n" for line in lines)


def written(path: Path, content: str | dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def made(name: str, folder: Path | None, *, length: int = 24, **changes: Any) -> QATask:
    data_dir = None if folder is None else str(folder)
    options = task_options(name, data_dir=data_dir, length=length, doc_stride=4, **changes)
    return make_task(options, VOCABULARY)
