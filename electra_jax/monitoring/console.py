"""Print names that users chose (labels, files, settings) on the terminal without taking them for markup."""

from typing import Any

from rich.console import Console


class PlainConsole(Console):
    """A console that prints texts and table cells literally: `[name]` is no markup, and `:name:` is no emoji."""

    def __init__(self, **settings: Any) -> None:
        """Create a console.

        Args:
            **settings: further arguments of `rich.console.Console`.
        """
        super().__init__(markup=False, emoji=False, **settings)
