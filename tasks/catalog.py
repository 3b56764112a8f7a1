"""Make a downstream task by its name, or from the record of a fine-tuned model."""

import difflib
from collections.abc import Mapping
from typing import Any

from electra_jax.errors import UserError
from electra_jax.tasks.folds import in_folds
from electra_jax.tasks.multiple_choice.task import CHOICE_TASKS, choice_task_from_facts, make_choice_task
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.original import choice
from electra_jax.tasks.protocol import DownstreamTask
from electra_jax.tasks.qa.sources import QA_TASKS
from electra_jax.tasks.qa.task import make_qa_task, qa_task_from_facts
from electra_jax.tasks.tagging.task import TAGGING_TASKS, make_tagging_task, tagging_task_from_facts
from electra_jax.tasks.text import prompts, vectors
from electra_jax.tasks.text import task as text_task
from electra_jax.tasks.vocabulary import Vocabulary

PACKAGE_OF = "package_of"

NAMES = (*text_task.NAMES, *vectors.NAMES, *CHOICE_TASKS, prompts.PROMPT, *QA_TASKS, *TAGGING_TASKS, PACKAGE_OF)


def make_task(
    options: TaskOptions, vocabulary: Vocabulary, *, recorded: Mapping[str, Any] | None = None
) -> DownstreamTask:
    """Make a task with its data; if FOLD and FOLDS are set, that fold is the dev split.

    Args:
        options: which task, and where its data is. A name that is not in `NAMES` is looked up in SeqIO's registry.
        vocabulary: tokenises the text.
        recorded: the result of `describe` for the task on which a model was fine-tuned, from which labels are then
            taken instead of the training file. None to train.

    Raises:
        UserError: if there is no such task, or no data for it, its rules do not support the vocabulary, or it cannot be
            divided into folds.
    """
    task = _whole_task(options, vocabulary, recorded)
    return task if options.folds is None and options.fold is None else in_folds(task, options)


def _whole_task(options: TaskOptions, vocabulary: Vocabulary, recorded: Mapping[str, Any] | None) -> DownstreamTask:
    """Make a task with its data, ignoring FOLDS."""
    name = options.task
    facts = None if recorded is None else choice.current_facts(recorded)
    if options.main_metric is not None and name not in (*text_task.NAMES, prompts.PROMPT):
        raise UserError(
            f"MAIN_METRIC is {options.main_metric!r}: it chooses among the scores of texts and pairs, and {name} has "
            "its own; leave it out"
        )
    if name in text_task.NAMES:
        return text_task.make_text_task(options, vocabulary, rules=choice.text_rules(options.rules), recorded=facts)
    if name in vectors.NAMES:
        return vectors.make_vector_task(options, vocabulary, recorded=facts)
    if name == prompts.PROMPT:
        return prompts.make_prompt_task(options, vocabulary, rules=choice.text_rules(options.rules), recorded=facts)
    if name in CHOICE_TASKS:
        return make_choice_task(options, vocabulary)
    if name == PACKAGE_OF:
        from electra_jax.tasks.text.package_of import make_package_task

        return make_package_task(options, vocabulary)
    if name in (*QA_TASKS, *TAGGING_TASKS):
        choice.check_vocabulary(options.rules, vocabulary)
    if name in QA_TASKS:
        return make_qa_task(options, vocabulary, rules=choice.qa_rules(options.rules), recorded=facts)
    if name in TAGGING_TASKS:
        rules = choice.tagging_rules(options.rules if facts is None else facts["rules"])
        return make_tagging_task(options, vocabulary, rules=rules, recorded=facts)
    if recorded is not None and recorded.get("registered") and recorded["task"] == name:
        return task_from_facts(recorded, vocabulary)
    check_name(name)
    if options.long_texts != "cut":
        raise UserError(
            f"LONG_TEXTS is {options.long_texts!r}: {name} of SeqIO's registry has one row a text; set it to 'cut'"
        )
    from electra_jax.tasks.seqio_import import task_of_registry

    return task_of_registry(name, vocabulary, length=options.row_length, clips=options.clip_predictions)


def check_name(name: str) -> None:
    """Refuse a name that is neither in `NAMES` nor in SeqIO's registry.

    Raises:
        UserError: if there is no task of that name.
    """
    if name in NAMES:
        return
    import seqio  # loads TensorFlow, so only for tasks that are not ours

    if name not in seqio.TaskRegistry.names():
        near = difflib.get_close_matches(name.lower().replace("-", ""), NAMES, n=3) or NAMES
        raise UserError(f"There is no task {name!r}; the nearest: {', '.join(near)}.")


def task_from_facts(facts: Mapping[str, Any], vocabulary: Vocabulary) -> DownstreamTask:
    """Rebuild a task from the result of `describe`: it reads raw input and makes predictions, but has no data.

    Args:
        facts: the record of the task in a fine-tuned model.
        vocabulary: the model's vocabulary.
    """
    facts = choice.current_facts(facts)
    if facts.get("registered"):
        from electra_jax.tasks import seqio_import

        return seqio_import.task_from_facts(facts, vocabulary)
    if facts["kind"] == "question_answering":
        return qa_task_from_facts(facts, vocabulary, rules=choice.qa_rules(facts["rules"]))
    if facts["kind"] == "tagging":
        return tagging_task_from_facts(facts, vocabulary, rules=choice.tagging_rules(facts["rules"]))
    if facts["kind"] == "multiple_choice":
        return choice_task_from_facts(facts, vocabulary)
    if facts["kind"] == prompts.PROMPT:
        return prompts.prompt_task_from_facts(facts, vocabulary, rules=choice.text_rules(facts["rules"]))
    if facts["kind"] in vectors.NAMES:
        return vectors.vector_task_from_facts(facts, vocabulary)
    return text_task.text_task_from_facts(facts, vocabulary, rules=choice.text_rules(facts["rules"]))
