"""Configurations of version 0.1: many switches of the original's behaviour become one for each area."""

import re

import pytest

from electra_jax.config.recorded import SWITCHES, Switch, with_added_fields, with_current_switches
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


def test_fields_that_version_0_1_lacked_are_added() -> None:
    recorded = "# Parameters for encoder.EncoderConfig:\n# ====\nencoder.EncoderConfig.local_attention = 7\n"
    text = with_added_fields(recorded)
    assert "encoder.EncoderConfig.position_embedding_type = 'absolute'\n" in text
    assert "encoder.EncoderConfig.layer_types = ('full_attention',)\n" in text
    assert text.count("local_attention") == 1
    assert with_added_fields(text) == text
    # What a person wrote is not completed, because other files may bind the rest.
    written = "encoder.EncoderConfig.hidden_size = 8\n"
    assert with_added_fields(written) == written
