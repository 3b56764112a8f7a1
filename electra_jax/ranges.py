"""Declare the range of a configuration field along with its type, `Annotated[int, AT_LEAST_1]`, and check both.

Gin's values are checked before anything is built, under the names that a user binds; all others, such as those of a
model.json or of another implementation's configuration, when the dataclass is made.
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
    """Limit a number, which must also be finite.

    Attributes:
        low, high: the limits.
        above_low, below_high: whether the limit itself is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False
    below_high: bool = False

    def holds(self, value: object) -> bool:
        """Return whether a value is a number in the range."""
        # An integer can be too large for a float, which JAX would make of it.
        if not isinstance(value, Real) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
            return False
        over = value > self.low if self.above_low else value >= self.low
        return over and (value < self.high if self.below_high else value <= self.high)

    def __str__(self) -> str:
        """Describe the allowed numbers, to end a sentence with."""
        if self == FINITE:
            return "a number"
        if self.high == math.inf:
            return "positive" if self.above_low else f"at least {self.low}"
        if not self.above_low and not self.below_high:
            return f"from {self.low} to {self.high}"
        low = f"{'above' if self.above_low else 'at least'} {self.low}"
        return f"{low} and {'under' if self.below_high else 'at most'} {self.high}"


class Named:
    """Limit a text to one that is not blank: an empty path would be the working folder, which nobody means."""

    def holds(self, value: object) -> bool:
        """Return whether a value is a text that is not blank."""
        return isinstance(value, str) and bool(value.strip())

    def __str__(self) -> str:
        """Describe the allowed texts, to end a sentence with."""
        return "a name that is not empty"


FINITE = Range()
AT_LEAST_0 = Range(0)
AT_LEAST_1 = Range(1)
# Far beyond the cores of any machine, so that a mistyped number is refused before processes are started.
PROCESSES = Range(0, 4096)
# For trainings or probes that one command runs in total or side by side: a mistyped number would never finish.
RUNS = Range(1, 10_000)
# For the axis of an array, which has 32-bit indices on a device.
SIZE = Range(1, 2**31 - 1)
# For a vocabulary: the tokenizers' trainers allocate room for all of it before they begin.
ENTRIES = Range(1, 10**7)
POSITIVE = Range(0, above_low=True)
# For a size as a multiple of another one.
MULTIPLE = Range(0, 1000, above_low=True)
SHARE = Range(0, 1)
POSITIVE_SHARE = Range(0, 1, above_low=True)
# For dropout and Adam's moments: 1 would divide by zero.
UNDER_1 = Range(0, 1, below_high=True)
# NumPy's generators take no negative seed, and `jax.random.key` none of over 64 bits; further seeds count up from it.
SEED = Range(0, 2**62)
NAMED = Named()
# For an integer in place of a float.
_MOST_WHOLE = 2**31 - 1


class Declared(NamedTuple):
    """Hold the declared type and range of a field.

    Attributes:
        kind: its type.
        allowed: its range; None if none is declared.
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
            # JAX holds an int in 32 bits, even next to floats.
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
    """Return whether a string can be written, and passed to the system as a path: some strings can be neither."""
    try:
        return b"\0" not in value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


@functools.cache
def declared(kind: type) -> dict[str, Declared]:
    """Return the declared type and range of each field of a dataclass."""
    annotated = typing.get_type_hints(kind, include_extras=True)
    ranges = {name: getattr(hint, "__metadata__", (None,))[0] for name, hint in annotated.items()}
    return {name: Declared(hint, ranges[name]) for name, hint in typing.get_type_hints(kind).items()}


def fits(value: object, kind: Any) -> bool:
    """Return whether a value is of a type, or of one type of a union; elements are checked only in lists of strings.

    The result is True for types that are neither simple types, nor collections, nor dataclasses.
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
    """Return whether a list type declares its elements to be strings."""
    return typing.get_args(kind) in ((str,), (str, ...))


def _is_float(kind: Any) -> bool:
    """Return whether a type is `float` or `float | None`; `int | float` takes integers as they are."""
    return kind is float or (isinstance(kind, types.UnionType) and {*typing.get_args(kind)} == {float, types.NoneType})


def name_of(kind: Any) -> str:
    """Return a type's name for users: Python's own, but for collections an element type only if it is string."""
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
