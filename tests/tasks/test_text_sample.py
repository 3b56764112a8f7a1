"""Samples of text are bounded, the same each time, and whole where the text fits."""

import collections

from electra_jax.tasks.text_sample import LONGEST_PIECE, cut_before_spaces, sample_lines


def test_all_that_fits_is_kept_in_order() -> None:
    sample = sample_lines(iter(["one\n\n two", " ", "drei é"]), max_bytes=100)
    assert sample.lines == ["one", " two", "drei é"]
    assert (sample.kept_bytes, sample.seen_bytes, sample.is_whole) == (3 + 4 + 7, 14, True)


def test_each_line_is_as_likely_as_any_other() -> None:
    lines = [f"{number:05d}" for number in range(20_000)]
    sample = sample_lines(["\n".join(lines)], max_bytes=10_000)
    assert (len(sample.lines), sample.kept_bytes, sample.seen_bytes) == (2000, 10_000, 100_000)
    assert sample.lines == sorted(set(sample.lines))
    assert sample_lines(lines, max_bytes=10_000) == sample
    # 200 of each tenth are expected, with a standard deviation of 13.
    tenths = collections.Counter(int(line) // 2000 for line in sample.lines)
    assert len(tenths) == 10
    assert all(140 < count < 260 for count in tenths.values())


def test_long_lines_are_cut_before_spaces() -> None:
    assert list(cut_before_spaces("ab cd ef", 4)) == ["ab", " cd", " ef"]
    assert list(cut_before_spaces("ab cd ef", 5)) == ["ab cd", " ef"]
    assert list(cut_before_spaces("abcdefg", 3)) == ["abc", "def", "g"]
    assert list(cut_before_spaces("abc", 3)) == ["abc"]
    assert list(cut_before_spaces("", 3)) == [""]
    sample = sample_lines(["word " * 10_000], max_bytes=10**6)
    assert "".join(sample.lines) == "word " * 10_000
    assert max(map(len, sample.lines)) <= LONGEST_PIECE
