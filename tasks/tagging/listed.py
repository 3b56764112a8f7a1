"""Read tagged sentences in the form of hubs: a record with a list of words and a list of as many tags."""

import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from electra_jax.errors import UserError
from electra_jax.tasks.records import column_names, records
from electra_jax.tasks.rows import BadRows, row_name

logger = logging.getLogger(__name__)

LISTED_SUFFIXES = (".jsonl", ".json", ".parquet")

_WORDS = ("tokens", "words")
# If there are several lists besides the words, the tags are the first of these.
_TAGS = ("tags", "labels", "ner_tags")
_SHOWN = 60


def listed_sentences(path: str | os.PathLike[str]) -> Iterator[list[tuple[int, list[str]]]]:
    """Yield each record of a .jsonl, a .json or a .parquet as the rows of a column file: [word, tag], or [word] alone.

    Rows have the number of their record. The words are its `tokens` or `words`. The tags are the other list; if there
    are several, the one called `tags`, `labels` or `ner_tags`.

    Raises:
        UserError: if the file cannot be read, has no such words, has several lists none of which has such a name, or
            has a record whose words and tags are not the same number of texts.
    """
    names = column_names(path)
    words_name = next((name for name in _WORDS if name in names), None)
    if words_name is None:
        raise UserError(
            f"{path} has no list of words: its fields are {', '.join(map(repr, names))}; expected 'tokens' (or "
            "'words') and 'tags'"
        )
    tags_name, begun = None, False
    for number, record in records(path, [words_name], BadRows(path, skip=False)):
        if record is None:
            continue
        if not begun:
            tags_name, begun = _name_of_tags(path, record, words_name), True
        place = f"{path}, {row_name(path, number)}"
        words = _texts(record, words_name, place)
        if tags_name is None:
            rows = [[word] for word in words]
        else:
            tags = _texts(record, tags_name, place)
            if len(tags) != len(words):
                raise UserError(f"{place}: {len(words)} {words_name} and {len(tags)} {tags_name}; expected as many")
            rows = [[word, tag] for word, tag in zip(words, tags, strict=True)]
        if rows:
            yield [(number, row) for row in rows]


def _name_of_tags(path: str | os.PathLike[str], record: Mapping[str, Any], words: str) -> str | None:
    lists = [name for name, value in record.items() if isinstance(value, list) and name != words]
    found = next((name for name in _TAGS if name in lists), lists[0] if len(lists) == 1 else None)
    others = [name for name in lists if name != found]
    if found is None and lists:
        raise UserError(
            f"{path} has the lists {', '.join(map(repr, lists))} in addition to its words: call that of the tags 'tags'"
        )
    if others:
        logger.warning("%s: the tags are %r; %s are not read", path, found, " and ".join(map(repr, others)))
    return found


def _texts(record: Mapping[str, Any], name: str, place: str) -> list[str]:
    found = record.get(name)
    if not isinstance(found, list) or not all(isinstance(one, str) and one.strip() for one in found):
        numbers = isinstance(found, list) and all(isinstance(one, int) for one in found)
        problem = "are numbers without names" if numbers else f"are {repr(found)[:_SHOWN]}"
        raise UserError(f"{place}: the {name} {problem}; write a list of texts")
    return found
