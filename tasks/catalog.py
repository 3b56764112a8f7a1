"""Every downstream task by its name, and those that a model was fine-tuned on."""

import difflib
from collections.abc import Mapping
from typing import Any

from electra_jax.errors import UserError
from electra_jax.tasks import text_task
from electra_jax.tasks.downstream import DownstreamTask, Pieces
from electra_jax.tasks.task_options import TaskOptions

QUESTION_ANSWERING = ("squad_v1", "squad_v2", "newsqa", "naturalqs", "triviaqa", "searchqa", "qa")
TAGGING = ("chunk", "ner", "tagging")
PACKAGE_OF = "package_of"

NAMES = (*text_task.NAMES, *QUESTION_ANSWERING, *TAGGING, PACKAGE_OF)


def make_task(options: TaskOptions, vocabulary: Pieces, *, recorded: Mapping[str, Any] | None = None) -> DownstreamTask:
    """Make a task with its data.

    Args:
      options: which task, and where its data is.
      vocabulary: tokenises.
      recorded: what `describe` said of the task that a model was fine-tuned on: its labels, which are then taken as
        they are rather than looked for in the training file. None to train.

    Raises:
      UserError: there is no such task (the nearest names), or no data for it.
    """
    name = options.task
    if name in text_task.NAMES:
        return text_task.make_text_task(options, vocabulary, recorded=recorded)
    if name == PACKAGE_OF:
        from electra_jax.tasks.package_of import make_package_task

        return make_package_task(options, vocabulary)
    if name in QUESTION_ANSWERING:
        from electra_jax.tasks.qa_task import make_qa_task

        return make_qa_task(options, vocabulary, recorded=recorded)
    if name in TAGGING:
        from electra_jax.tasks.tagging_task import make_tagging_task

        return make_tagging_task(options, vocabulary, recorded=recorded)
    near = difflib.get_close_matches(name, NAMES, n=3) or NAMES
    raise UserError(f"There is no task {name!r}; the nearest: {', '.join(near)}.")


def task_from_facts(facts: Mapping[str, Any], vocabulary: Pieces) -> DownstreamTask:
    """Return the task that `describe` told of: it reads raw input and makes predictions, but has no data.

    Args:
      facts: of a fine-tuned model's description.
      vocabulary: the model's.
    """
    if facts["kind"] == "question_answering":
        from electra_jax.tasks.qa_task import qa_task_from_facts

        return qa_task_from_facts(facts, vocabulary)
    if facts["kind"] == "tagging":
        from electra_jax.tasks.tagging_task import tagging_task_from_facts

        return tagging_task_from_facts(facts, vocabulary)
    return text_task.text_task_from_facts(facts, vocabulary)
