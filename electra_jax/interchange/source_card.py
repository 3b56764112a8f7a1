"""Read from an imported model's card what also holds for models made from it: its license and its languages."""

import re
from pathlib import Path
from typing import Any

import yaml

from electra_jax.checkpoints.model_record import SOURCE

CARD = "README.md"
FIELDS = ("license", "license_name", "license_link", "language")

# A file that exceeds these limits is not taken for a card.
MOST_BYTES, MOST_NAMES, LONGEST = 1 << 20, 200, 200

# The front matter, delimited as hubs read it.
FRONT_MATTER = re.compile(r"\A\s*---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
# The name of a model's folder in the download cache of the hub.
CACHED = re.compile(r"models--([\w.-]+?)--([\w.-]+)")


def source_facts(directory: Path) -> tuple[dict[str, Any], list[str]]:
    """Return facts about the directory that a model comes from, for the cards of models made from it, and notes.

    The model's name on the hub is known if the directory is in the download cache; otherwise the card may name the
    model that it was made from.
    """
    values, notes = front_matter(directory / CARD)
    found = {name: value for name in FIELDS if (value := named(values.get(name)))}
    cached = next((match for part in directory.resolve().parts if (match := CACHED.fullmatch(part))), None)
    base = f"{cached[1]}/{cached[2]}" if cached else named(values.get("base_model"))
    found |= {"base_model": base} if base else {}
    return ({SOURCE: found} if found else {}), notes


def front_matter(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the front matter of a card and notes; an empty dict, with a note, if it cannot be read."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return {}, []
        match = FRONT_MATTER.match(path.read_text(encoding="utf-8-sig"))
        values = yaml.safe_load(match[1]) if match else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:LONGEST]
        return {}, [f"the front matter of {path} cannot be read ({reason}): its license was not taken along"]
    return (values if isinstance(values, dict) else {}), []


def named(value: Any) -> str | list[str] | None:
    """Return a value of a front matter if it is a name or a list of names; None for anything else."""
    # YAML reads "no", the language code of Norwegian, as false.
    value = "no" if value is False else value
    if isinstance(value, str) and 0 < len(value) <= LONGEST:
        return value
    if isinstance(value, list) and 0 < len(value) <= MOST_NAMES:
        names = [named(one) for one in value]
        return names if all(isinstance(one, str) for one in names) else None
    return None
