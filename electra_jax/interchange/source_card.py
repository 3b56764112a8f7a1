"""Read what the card of an imported model says that holds for every model made of it: its license and its languages."""

import re
from pathlib import Path
from typing import Any

import yaml

from electra_jax.checkpoints.model_record import SOURCE

CARD = "README.md"
FIELDS = ("license", "license_name", "license_link", "language")

# Where a card says more, it is no card.
MOST_BYTES, MOST_NAMES, LONGEST = 1 << 20, 200, 200

# The values of the front matter, as hubs read it.
FRONT_MATTER = re.compile(r"\A\s*---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
# The folder of a model in the cache of downloads, which has its name.
CACHED = re.compile(r"models--([\w.-]+?)--([\w.-]+)")


def source_facts(directory: Path) -> tuple[dict[str, Any], list[str]]:
    """Return facts about the directory that a model comes from, for cards of what is made of it, and notes.

    Its name on the hub is known where the directory stands in the cache of downloads; otherwise the card may name the
    model that it was made of.
    """
    values, notes = front_matter(directory / CARD)
    found = {name: value for name in FIELDS if (value := named(values.get(name)))}
    cached = next((match for part in directory.resolve().parts if (match := CACHED.fullmatch(part))), None)
    base = f"{cached[1]}/{cached[2]}" if cached else named(values.get("base_model"))
    found |= {"base_model": base} if base else {}
    return ({SOURCE: found} if found else {}), notes


def front_matter(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the front matter of a card; nothing, and a note, where it cannot be read."""
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
    """Return a name, or a list of names, of a front matter; None for anything else."""
    # YAML reads the language code of Norwegian as a falsehood.
    value = "no" if value is False else value
    if isinstance(value, str) and 0 < len(value) <= LONGEST:
        return value
    if isinstance(value, list) and 0 < len(value) <= MOST_NAMES:
        names = [named(one) for one in value]
        return names if all(isinstance(one, str) for one in names) else None
    return None
