"""The records of a model directory: how its config.gin is named, and how records of version 0.1 are read.

Version 0.1 had other switches, and lacked fields, whose values say what it did.
"""

import re
from typing import Any, NamedTuple

from electra_jax.errors import UserError


class RecordedFile(NamedTuple):
    """Name a config.gin that is read because it stands in a model directory: data, which may not run code.

    Attributes:
        path: the file.
        needs_imports: whether the run's own modules are needed, such as one that registers a SeqIO task; without,
            their imports are left out.
    """

    path: str
    needs_imports: bool

    def __str__(self) -> str:
        """Return the path, for messages."""
        return self.path


class Switch(NamedTuple):
    """One of today's switches, and the fields of version 0.1 in its place.

    Attributes:
        owner: the dataclass that has them.
        name: the field of today.
        standard, original: its values, as Gin writes them.
        fields: those of version 0.1, with the value that stands for `original`, as Gin writes it.
    """

    owner: str
    name: str
    standard: str
    original: str
    fields: dict[str, str]


SWITCHES = (
    Switch("CacheConfig", "example_building", "'complete'", "'original'", {"packing": "'reference'"}),
    Switch("OptimizerConfig", "top_layer_exponent", "1", "2", {"layerwise_exponents": "'reference'"}),
    Switch(
        "PretrainingRun",
        "rules",
        "'standard'",
        "'original'",
        {"mask_with_replacement": "True", "average_duplicates": "True", "reference_metrics": "True"},
    ),
    Switch(
        "TaskOptions",
        "rules",
        "'standard'",
        "'original'",
        {
            "gold_counts_predicted": "True",
            "span_reader": "'reference'",
            "alignment": "'reference'",
            "token_type_id": "1",
            "observed_labels": "True",
            "word_aligned_answers": "True",
            "answerless_windows_are_answerable": "True",
            "disjoint_windows": "True",
            "drop_empty_contexts": "True",
            "final_sep_is_answerable": "True",
            "project_words": "True",
            "no_span_text": "'empty'",
            "skip_unanswered": "True",
        },
    ),
)


def added_fields() -> dict[str, dict[str, Any]]:
    """Return by dataclass the fields that version 0.1 lacked, each with the value that stands for what it did."""
    # The command line answers before JAX is imported.
    from electra_jax.model.config import BERT_BLOCK

    pooling = {"classifier_pooling": "cls"}
    return {"EncoderConfig": BERT_BLOCK, "HeadConfig": pooling, "HeadOptions": pooling}


def with_added_fields(text: str) -> str:
    """Return a configuration that Gin wrote with the fields of `added_fields` that it lacks.

    Args:
        text: a Gin file. What a person wrote, without Gin's headings, is returned as it is.
    """
    for owner, added in added_fields().items():
        heading = re.search(rf"^# Parameters for (\w+\.{owner}):$", text, flags=re.MULTILINE)
        if heading:
            names = {name: f"{heading[1]}.{name}" for name in added}
            missing = [
                f"{selector} = {added[name]!r}\n"
                for name, selector in names.items()
                if not re.search(rf"^{selector} = ", text, flags=re.MULTILINE)
            ]
            text = f"{text.rstrip()}\n\n{''.join(missing)}" if missing else text
    return text


def with_current_switches(text: str) -> str:
    """Return a configuration with each group of version 0.1's switches, where all are bound, replaced by today's one.

    Args:
        text: a Gin file. Other files than those that version 0.1 recorded are returned as they are.

    Raises:
        UserError: if some switches of a group follow the original and others do not.
    """
    # The only macro that stood for such a switch. It stays, without use.
    macro = re.search(r"^LAYERWISE_EXPONENTS = ('\w+')$", text, flags=re.MULTILINE)
    if macro:
        text = text.replace("%LAYERWISE_EXPONENTS", macro[1])
    for switch in SWITCHES:
        lines = re.compile(rf"^(\w+\.{switch.owner})\.({'|'.join(switch.fields)}) = (.*)\n", flags=re.MULTILINE)
        found = {line[2]: line[3] == switch.fields[line[2]] for line in lines.finditer(text)}
        if found.keys() != switch.fields.keys():
            continue
        if len(set(found.values())) > 1:
            followed = ", ".join(name for name, as_original in found.items() if as_original)
            raise UserError(
                f"{switch.owner} was recorded by version 0.1 with some of the original's behaviour ({followed}), and "
                f"{switch.owner}.{switch.name} switches all of it: use version 0.1"
            )
        value = switch.original if all(found.values()) else switch.standard
        selector = lines.search(text)[1]
        text = f"{lines.sub('', text).rstrip()}\n\n{selector}.{switch.name} = {value}\n"
    return text
