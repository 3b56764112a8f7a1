"""Every downstream task by its name, and those that a model was fine-tuned on."""

import difflib
from collections.abc import Mapping
from typing import Any

from electra_jax.errors import UserError
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.protocol import DownstreamTask
from electra_jax.tasks.qa.sources import QA_TASKS
from electra_jax.tasks.qa.task import make_qa_task, qa_task_from_facts
from electra_jax.tasks.tagging.task import TAGGING_TASKS, make_tagging_task, tagging_task_from_facts
from electra_jax.tasks.text import task as text_task
from electra_jax.tasks.vocabulary import Vocabulary

PACKAGE_OF = "package_of"

NAMES = (*text_task.NAMES, *QA_TASKS, *TAGGING_TASKS, PACKAGE_OF)


def make_task(
    options: TaskOptions, vocabulary: Vocabulary, *, recorded: Mapping[str, Any] | None = None
) -> DownstreamTask:
    """Make a task with its data.

    Args:
      options: which task, and where its data is. A name that is none of `NAMES` is looked for in SeqIO's registry.
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
        from electra_jax.tasks.text.package_of import make_package_task

        return make_package_task(options, vocabulary)
    if name in QA_TASKS:
        return make_qa_task(options, vocabulary, recorded=recorded)
    if name in TAGGING_TASKS:
        return make_tagging_task(options, vocabulary, recorded=recorded)
    if recorded is not None and recorded.get("registered") and recorded["task"] == name:
        return task_from_facts(recorded, vocabulary)
    check_name(name)
    from electra_jax.tasks.seqio_import import task_of_registry

    return task_of_registry(name, vocabulary, length=options.row_length)


def check_name(name: str) -> None:
    """Refuses a name that is none of `NAMES` and not in SeqIO's registry.

    Raises:
      UserError: names the nearest.
    """
    if name in NAMES:
        return
    import seqio  # and TensorFlow: only for what is not ours

    if name not in seqio.TaskRegistry.names():
        near = difflib.get_close_matches(name.lower().replace("-", ""), NAMES, n=3) or NAMES
        raise UserError(f"There is no task {name!r}; the nearest: {', '.join(near)}.")


def task_from_facts(facts: Mapping[str, Any], vocabulary: Vocabulary) -> DownstreamTask:
    """Return the task that `describe` told of: it reads raw input and makes predictions, but has no data.

    Args:
      facts: of a fine-tuned model's description.
      vocabulary: the model's.
    """
    if facts.get("registered"):
        from electra_jax.tasks import seqio_import

        return seqio_import.task_from_facts(facts, vocabulary)
    if facts["kind"] == "question_answering":
        return qa_task_from_facts(facts, vocabulary)
    if facts["kind"] == "tagging":
        return tagging_task_from_facts(facts, vocabulary)
    return text_task.text_task_from_facts(facts, vocabulary)
