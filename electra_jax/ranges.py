"""Declare the range of a field of a configuration beside its type, `Annotated[int, AT_LEAST_1]`, and check both.

Gin's values are checked before anything is built, under the names that a user binds; all others, such as those of a
model.json or of another implementation's configuration, where the dataclass is made.
"""

import dataclasses
import functools
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

from electra_jax.errors import UserError


class Range(NamedTuple):
    """Limit a number, which is finite in any case.

    Attributes:
        low, high: the limits.
        above_low, below_high: whether a limit is itself outside.
    """

    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False
    below_high: bool = False

    def holds(self, value: object) -> bool:
        """Return whether a value is a number in the range."""
        # A whole number can be too large for any float, which JAX would make of it.
        if not isinstance(value, Real) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
            return False
        over = value > self.low if self.above_low else value >= self.low
        return over and (value < self.high if self.below_high else value <= self.high)

    def __str__(self) -> str:
        """Return what is allowed, to end a sentence with."""
        if self == FINITE:
            return "a number"
        if self.high == math.inf:
            return "positive" if self.above_low else f"at least {self.low}"
        if not self.above_low and not self.below_high:
            return f"from {self.low} to {self.high}"
        low = f"{'above' if self.above_low else 'at least'} {self.low}"
        return f"{low} and {'under' if self.below_high else 'at most'} {self.high}"


class Named:
    """Limit a text to one with a letter: an empty path is the working folder, which nobody means."""

    def holds(self, value: object) -> bool:
        """Return whether a value is a text that is not blank."""
        return isinstance(value, str) and bool(value.strip())

    def __str__(self) -> str:
        """Return what is allowed, to end a sentence with."""
        return "a name that is not empty"


FINITE = Range()
AT_LEAST_0 = Range(0)
AT_LEAST_1 = Range(1)
# Far beyond the cores of any machine: a number that is a mistake is refused before processes are started.
PROCESSES = Range(0, 4096)
# Of trainings or probes that one command does, or has side by side: a number that is a mistake has no end.
RUNS = Range(1, 10_000)
# Of an axis of an array, which has 32-bit indices on a device.
SIZE = Range(1, 2**31 - 1)
# Of a vocabulary: the tokenizers' trainers make room for all of it before they begin.
ENTRIES = Range(1, 10**7)
POSITIVE = Range(0, above_low=True)
# Of a size as a multiple of another one.
MULTIPLE = Range(0, 1000, above_low=True)
SHARE = Range(0, 1)
POSITIVE_SHARE = Range(0, 1, above_low=True)
# Of dropout and of Adam's moments: 1 would divide by zero.
UNDER_1 = Range(0, 1, below_high=True)
# NumPy's generators take none below 0, and `jax.random.key` none of more than 64 bits; further seeds count on from it.
SEED = Range(0, 2**62)
NAMED = Named()
# Of a whole number in place of a float.
_MOST_WHOLE = 2**31 - 1


class Declared(NamedTuple):
    """Hold what is declared of a field.

    Attributes:
        kind: its type.
        allowed: its range; None where none is declared.
    """

    kind: Any
    allowed: Range | Named | None

    def check(self, name: str, value: Any) -> None:
        """Check a value, or each number of a list or a mapping; None stands for no value.

        Args:
            name: the setting, as the user knows it.
            value: its value.

        Raises:
            UserError: if a value is of another type, or out of range.
        """
        if not fits(value, self.kind):
            raise UserError(f"{name} is {value!r}: it must be {name_of(self.kind)}")
        values: Iterable[Any] = [value]
        if isinstance(value, Mapping):
            values = value.values()
        elif isinstance(value, list | tuple):
            values = value
        for one in values:
            # JAX holds an int as one of 32 bits, also beside floats.
            if isinstance(one, int) and abs(one) > _MOST_WHOLE and _is_float(self.kind):
                raise UserError(
                    f"{name} is {value!r}: a whole number for a float must be within {_MOST_WHOLE}: write it as in 1e10"
                )
            if isinstance(one, str) and not is_text(one):
                raise UserError(f"{name} is {value!r}: it holds a character that no text or path can hold")
            if self.allowed is not None and one is not None and not self.allowed.holds(one):
                place = "is" if one is value else f"is {value!r} and holds"
                finite = "finite and " if isinstance(one, float) and not math.isfinite(one) else ""
                raise UserError(f"{name} {place} {one!r}: it must be {finite}{self.allowed}")


def is_text(value: str) -> bool:
    """Return whether a string can be written, and handed to the system as a path: what is none cannot be either."""
    try:
        return b"\0" not in value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


@functools.cache
def declared(kind: type) -> dict[str, Declared]:
    """Return what is declared of each field of a dataclass."""
    annotated = typing.get_type_hints(kind, include_extras=True)
    ranges = {name: getattr(hint, "__metadata__", (None,))[0] for name, hint in annotated.items()}
    return {name: Declared(hint, ranges[name]) for name, hint in typing.get_type_hints(kind).items()}


def fits(value: object, kind: Any) -> bool:
    """Return whether a value is of a type, or of one of a union; elements are looked at in a list of strings alone.

    True for all types that are neither simple, nor collections, nor dataclasses.
    """
    if isinstance(kind, types.UnionType):
        return any(fits(value, one) for one in typing.get_args(kind))
    origin = typing.get_origin(kind)
    if origin in (tuple, list, Sequence):
        return isinstance(value, list | tuple) and (
            not _is_of_strings(kind) or all(isinstance(one, str) for one in value)
        )
    if origin in (dict, Mapping):
        return isinstance(value, Mapping)
    if dataclasses.is_dataclass(kind):
        return isinstance(value, kind)
    if kind not in (int, float, str, bool, types.NoneType):
        return True
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _is_of_strings(kind: Any) -> bool:
    """Return whether the type of a list says that each element is a string."""
    return typing.get_args(kind) in ((str,), (str, ...))


def _is_float(kind: Any) -> bool:
    """Return whether a type is that of a float, if any; `int | float` takes whole numbers as they are."""
    return kind is float or (isinstance(kind, types.UnionType) and {*typing.get_args(kind)} == {float, types.NoneType})


def name_of(kind: Any) -> str:
    """Return how a type is named to users: as Python names it; of what a collection holds only strings are named."""
    if isinstance(kind, types.UnionType):
        return " | ".join(map(name_of, typing.get_args(kind)))
    if kind is types.NoneType:
        return "None"
    origin = typing.get_origin(kind)
    if origin is not None:
        if origin in (dict, Mapping):
            return "dict"
        return "list of str" if _is_of_strings(kind) else "list"
    return kind.__name__


def check(config: Any) -> None:
    """Check every field of a dataclass.

    Raises:
        UserError: if a value is of another type, or out of range.
    """
    for name, field in declared(type(config)).items():
        value = getattr(config, name)
        # A number that JAX traces, as in a sweep within one program, has no value yet.
        if not hasattr(value, "dtype"):
            field.check(f"{type(config).__name__}.{name}", value)


class Checked:
    """Check every field of a dataclass when it is made."""

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: if a setting is of another type, or out of range.
        """
        check(self)
