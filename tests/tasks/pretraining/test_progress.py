"""What a log says of a corpus that is being read."""

import re

import pytest

from electra_jax.tasks.pretraining.progress import ByteProgress


def last_line(done: list[tuple[int, bool]], capsys: pytest.CaptureFixture[str]) -> str:
    with ByteProgress("Tokenising", 4_000_000, show=True) as progress:
        for num_bytes, already_done in done:
            progress.advance(num_bytes, already_done=already_done)
    return capsys.readouterr().err.splitlines()[-1]


def test_the_share_of_a_corpus(capsys: pytest.CaptureFixture[str]) -> None:
    said = last_line([(1_000_000, True), (2_000_000, False)], capsys)
    assert re.fullmatch(r"Tokenising: 3\.0 of 4\.0 MB, [\d.]+ MB/s, \d+ s left", said)


def test_nothing_is_said_to_be_nearly_done_beyond_the_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    said = last_line([(5_000_000, False)], capsys)
    assert re.fullmatch(r"Tokenising: 5\.0 MB, [\d.]+ MB/s, more than the estimate", said)
