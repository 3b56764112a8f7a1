"""A reporter that keeps what it is told."""

# What a report says of the machine.
TIMED = ("examples_per_second", "tokens_per_second", "data_wait_share", "seconds")


class Recorder:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str, dict[str, float]]] = []

    def report(self, step: int, split: str, values: dict[str, float]) -> None:
        self.lines.append((step, split, values))

    def steps(self, split: str) -> list[int]:
        return [step for step, name, _ in self.lines if name == split]
