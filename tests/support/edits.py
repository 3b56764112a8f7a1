"""Edits of files, drawn from a seed: values of JSON of another type or left out, bytes flipped, content cut off."""

import copy
import json
import random
from typing import Any

VALUES = (
    None,
    True,
    -1,
    0,
    2.5,
    10**9,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "wide",
    "\ud800",
    [],
    [[]],
    {},
    {"a": {}},
)
TEXTS = (b"", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b"null", b"[]", b'"model"', b"\x00" * 100)

Places = list[tuple[Any, Any]]


def places_of(value: Any) -> Places:
    """Return every (container, key) in a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *places_of(value[key]))]


def edited(original: bytes, draw: random.Random) -> bytes:
    """Return the content of a file of JSON after one edit."""
    kind = draw.random()
    if kind < 0.1:
        return draw.choice(TEXTS)
    if kind < 0.2:
        return original[: draw.randrange(len(original))]
    value = copy.deepcopy(json.loads(original))
    container, key = draw.choice(places_of(value))
    if kind < 0.4:
        del container[key]
    else:
        container[key] = draw.choice(VALUES)
    return json.dumps(value).encode()


def edited_bytes(original: bytes, draw: random.Random) -> bytes:
    """Return the content of a file of any kind after one edit: as JSON where it is, else as bytes."""
    try:
        if places_of(json.loads(original)):
            return edited(original, draw)
    except ValueError:
        pass
    kind = draw.random()
    if kind < 0.2 or not original:
        return draw.choice(TEXTS)
    if kind < 0.4:
        return original[: draw.randrange(len(original))]
    content = bytearray(original)
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)
