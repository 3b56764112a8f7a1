"""Declare the range of a field of a configuration beside its type: `Annotated[int, AT_LEAST_1]`, and check it.

Gin's values are checked before anything is built, under the names that a user binds; all others, such as those of a
model.json or of another implementation's configuration, where the dataclass is made.
"""

import functools
import math
import typing
from collections.abc import Iterable, Mapping
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
        if not isinstance(value, Real) or isinstance(value, bool) or not -math.inf < value < math.inf:
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
POSITIVE = Range(0, above_low=True)
SHARE = Range(0, 1)
POSITIVE_SHARE = Range(0, 1, above_low=True)
# Of dropout and of Adam's moments: 1 would divide by zero.
UNDER_1 = Range(0, 1, below_high=True)
# Of `jax.random.key` without 64-bit integers, and of NumPy's generators.
SEED = Range(0, 2**32 - 1)
NAMED = Named()


@functools.cache
def declared(kind: type) -> dict[str, Range | Named]:
    """Return the range of each field of a dataclass that declares one."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items() if hasattr(hint, "__metadata__")}


def check_value(name: str, value: Any, allowed: Range | Named) -> None:
    """Check a value, or each number of a list or a mapping; None stands for no value.

    Args:
        name: the setting, as the user knows it.
        value: its value.
        allowed: the range.

    Raises:
        UserError: if a value is out of range.
    """
    values: Iterable[Any] = [value]
    if isinstance(value, Mapping):
        values = value.values()
    elif isinstance(value, list | tuple):
        values = value
    for one in values:
        if one is not None and not allowed.holds(one):
            place = "is" if one is value else f"is {value!r} and holds"
            finite = "finite and " if isinstance(one, float) and not math.isfinite(one) else ""
            raise UserError(f"{name} {place} {one!r}: it must be {finite}{allowed}")


def check(config: Any) -> None:
    """Check every field of a dataclass that declares a range.

    Raises:
        UserError: if a value is out of range.
    """
    for name, allowed in declared(type(config)).items():
        check_value(f"{type(config).__name__}.{name}", getattr(config, name), allowed)
