"""Print on the terminal what users have named: labels, files, settings."""

from typing import Any

from rich.console import Console


class PlainConsole(Console):
    """A console that prints texts and cells of tables as they are, not `[name]` as markup nor `:name:` as a picture."""

    def __init__(self, **settings: Any) -> None:
        """Create it.

        Args:
            settings: see `rich.console.Console`.
        """
        super().__init__(markup=False, emoji=False, **settings)
