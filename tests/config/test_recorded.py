"""Configurations of earlier versions: many switches of version 0.1 become one for each area, later fields are added."""

import re

import pytest

from electra_jax.config.recorded import (
    SWITCHES,
    Field,
    Switch,
    added_fields,
    with_current_fields,
    with_current_switches,
)
from electra_jax.errors import UserError

NAMES = [f"{switch.owner}.{switch.name}" for switch in SWITCHES]


def recorded(switch: Switch, *, as_original: bool) -> str:
    """The lines of a group's fields, among others."""
    values = switch.fields if as_original else dict.fromkeys(switch.fields, "'ours'")
    lines = [f"module.{switch.owner}.{name} = {value}\n" for name, value in values.items()]
    return f"import module\n{''.join(lines)}module.{switch.owner}.other = %OTHER\n"


@pytest.mark.parametrize("switch", SWITCHES, ids=NAMES)
def test_a_group_of_switches_becomes_one(switch: Switch) -> None:
    kept = f"import module\nmodule.{switch.owner}.other = %OTHER\n\nmodule.{switch.owner}.{switch.name} = "
    assert with_current_switches(recorded(switch, as_original=False)) == f"{kept}{switch.standard}\n"
    assert with_current_switches(recorded(switch, as_original=True)) == f"{kept}{switch.original}\n"


@pytest.mark.parametrize("switch", [each for each in SWITCHES if len(each.fields) > 1], ids=lambda each: each.owner)
def test_a_part_of_a_group_is_refused_or_left_alone(switch: Switch) -> None:
    text = recorded(switch, as_original=True)
    name, value = next(iter(switch.fields.items()))
    mixed = text.replace(f"{name} = {value}", f"{name} = 'ours'")
    with pytest.raises(UserError, match=rf"{switch.owner}\.{switch.name} switches all of it"):
        with_current_switches(mixed)
    part = re.sub(rf".*\.{name} = .*\n", "", text)
    assert with_current_switches(part) == part


def test_the_macro_of_a_switch_is_read() -> None:
    macro = "LAYERWISE_EXPONENTS = 'reference'\n"
    text = f"{macro}x.OptimizerConfig.layerwise_exponents = %LAYERWISE_EXPONENTS\n"
    assert with_current_switches(text) == f"{macro}\nx.OptimizerConfig.top_layer_exponent = 2\n"


@pytest.mark.parametrize("field", added_fields(), ids=lambda field: f"{field.owner}.{field.name}")
def test_a_field_that_came_later_is_added_once(field: Field) -> None:
    older = re.fullmatch(r"[A-Z]\w+\.\w+", field.value)
    value = "%OLDER" if older else field.value
    text = f"module.{field.owner}.{field.beside} = 1\n" + (f"else.{field.value} = %OLDER\n" if older else "")
    now = with_current_fields(text)
    assert f"\nmodule.{field.owner}.{field.name} = {value}\n" in now
    assert with_current_fields(now) == now
    # A file of the user's that binds another field of the same dataclass.
    other = f"module.{field.owner}.other = 1\n"
    assert with_current_fields(other) == other
