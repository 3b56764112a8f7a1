"""Cut questions about contexts into windows of word pieces that a model can read, for training and for prediction."""

import dataclasses
import unicodedata
from collections.abc import Callable

import numpy as np

from electra_jax.errors import UserError
from electra_jax.tasks.qa.answers import TokenizedContext, UnusableAnswerError, align_by_characters, tokenize_context
from electra_jax.tasks.qa.questions import Answer, QAExample
from electra_jax.tasks.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class QARules:
    """Decide what is learnt from a question and how its answer is written, where implementations differ.

    Attributes:
        name: the name that a fine-tuned model records.
        align: given a context, an answer and the vocabulary, returns the first and last word piece of the answer, or
            raises `UnusableAnswerError`.
        cut: has the arguments and results of `overlapping_spans`.
        answerless_windows_are_impossible: whether `is_impossible` is 1 for a training window that does not hold the
            whole answer of its question.
        final_sep_is_answerable: whether the last [SEP] may start or end an answer.
        span_text: has the arguments and results of the function `span_text`.
        no_span_text: the answer to a question for which no span is left.
        skip_unanswered: whether MRQA's scores leave out the questions without a prediction.
    """

    name: str
    align: Callable[[TokenizedContext, Answer, Vocabulary], tuple[int, int]]
    cut: Callable[..., list[tuple[int, int]]]
    answerless_windows_are_impossible: bool
    final_sep_is_answerable: bool
    span_text: Callable[[str, "Window", int, int, Vocabulary], str]
    no_span_text: str
    skip_unanswered: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """How a context is cut.

    Attributes:
        max_sequence_length: the most tokens of a window, special ones included.
        max_question_length: the most word pieces of a question; the rest is cut off.
        doc_stride: word pieces of the context from one window's start to the next one's.
        rules: where answers are, and which windows there are.
    """

    max_sequence_length: int
    max_question_length: int
    doc_stride: int
    rules: QARules

    def __post_init__(self) -> None:
        """Refuse settings with which windows could not advance through a context.

        Raises:
            UserError: if a size is below its minimum.
        """
        for name, least in (("max_sequence_length", 4), ("max_question_length", 0), ("doc_stride", 1)):
            if getattr(self, name) < least:
                raise UserError(f"WindowConfig.{name} = {getattr(self, name)} must be at least {least}")


@dataclasses.dataclass(frozen=True)
class Window:
    """A question and C word pieces of its context: L = len(input_ids) tokens, unpadded.

    Attributes:
        example_id: the question's name.
        index: the number of the window among those of its question.
        input_ids_L, token_type_ids_L: int32, [CLS] question [SEP] context [SEP]; types 0 before the context.
        answer_mask_L: int32, 1 where an answer may start or end: the context, and [CLS] for "none here".
        question_tokens: number of word pieces of the question, including those that were cut off.
        context_start: position of the window's first word piece of the context.
        first_piece: number of that piece in the whole context.
        offsets_C2: int32, characters of the whole context [start, end) that each of its pieces covers.
        is_max_context_C: bool, whether no other window has more context around the piece.
        start_position, end_position: where the answer starts and ends (inclusive), 0 without one; None when not
            training.
        is_impossible: whether the window has no answer; None when not training.
    """

    example_id: str
    index: int
    input_ids_L: np.ndarray
    token_type_ids_L: np.ndarray
    answer_mask_L: np.ndarray
    question_tokens: int
    context_start: int
    first_piece: int
    offsets_C2: np.ndarray
    is_max_context_C: np.ndarray
    start_position: int | None
    end_position: int | None
    is_impossible: bool | None

    def features(self) -> dict[str, np.ndarray]:
        """Return the model's inputs, int32: [L] arrays, unpadded, and in training the scalar targets."""
        features = {
            "input_ids": self.input_ids_L,
            "token_type_ids": self.token_type_ids_L,
            "attention_mask": np.ones_like(self.input_ids_L),
            "answer_mask": self.answer_mask_L,
        }
        if self.is_impossible is not None:
            features["start_positions"] = np.array(self.start_position, np.int32)
            features["end_positions"] = np.array(self.end_position, np.int32)
            features["is_impossible"] = np.array(self.is_impossible, np.int32)
        return features


def prediction_windows(example: QAExample, vocabulary: Vocabulary, config: WindowConfig) -> list[Window]:
    """Return all windows of a question, without targets.

    Args:
        example: the question.
        vocabulary: tokenises the question and the context.
        config: how to cut.

    Raises:
        UserError: if the question leaves no room for its context.
    """
    return _windows(example, tokenize_context(vocabulary, example.context), vocabulary, config)


def training_windows(example: QAExample, vocabulary: Vocabulary, config: WindowConfig) -> list[Window]:
    """Return all windows of a question, with its first answer as their target if they hold the whole of it.

    Raises:
        UserError: if the question leaves no room for its context.
        UnusableAnswerError: if the question is answerable by its file, but has no answer that can be learnt.
    """
    context = tokenize_context(vocabulary, example.context)
    answer = None if example.is_impossible else answer_tokens(example, vocabulary, config.rules)
    windows = _windows(example, context, vocabulary, config)
    return [_with_target(window, answer, config.rules) for window in windows]


def answer_tokens(example: QAExample, vocabulary: Vocabulary, rules: QARules) -> tuple[int, int]:
    """Return the first and the last word piece, in the whole context, of the first answer: the one that is learnt from.

    Raises:
        UnusableAnswerError: if no answer is given, or it cannot be learnt.
    """
    if not example.answers:
        raise UnusableAnswerError("no answer is given")
    return rules.align(tokenize_context(vocabulary, example.context), example.answers[0], vocabulary)


def cut_spans(num_tokens: int, *, room: int, doc_stride: int) -> list[tuple[int, int]]:
    """Return the (start, length) of each window over a context: `room` tokens at most, `doc_stride` apart at most."""
    spans = []
    start = 0
    while start < num_tokens:
        length = min(num_tokens - start, room)
        spans.append((start, length))
        if start + length == num_tokens:
            break
        start += min(length, doc_stride)
    return spans


def overlapping_spans(num_tokens: int, *, room: int, doc_stride: int) -> list[tuple[int, int]]:
    """Return the (start, length) of each window over a context, so that every token is well inside one of them.

    Args:
        num_tokens: tokens of the context; an empty one has one empty window.
        room: the most tokens of a window.
        doc_stride: tokens from one window's start to the next one's; half the room if it would leave gaps.
    """
    stride = max(1, room // 2) if doc_stride >= room else doc_stride
    return cut_spans(num_tokens, room=room, doc_stride=stride) or [(0, 0)]


def max_context_spans(spans: list[tuple[int, int]], num_tokens: int) -> np.ndarray:
    """Return for each token the number of the span with the most context around it, int32; -1 if no span holds it.

    A span's context is the smaller of the numbers of tokens before and after, plus a hundredth of the span's length; in
    a tie the first is taken. Source: BERT's `_check_is_max_context`.
    """
    best_T = np.full(num_tokens, -1, np.int32)
    score_T = np.full(num_tokens, -np.inf)
    for number, (start, length) in enumerate(spans):
        before_C = np.arange(length)
        score_C = np.minimum(before_C, length - 1 - before_C) + 0.01 * length
        better_C = score_C > score_T[start : start + length]
        score_T[start : start + length][better_C] = score_C[better_C]
        best_T[start : start + length][better_C] = number
    return best_T


def span_text(context: str, window: Window, start: int, end: int, vocabulary: Vocabulary) -> str:
    """Return the text of the characters of `span_characters`."""
    del vocabulary  # Characters suffice; other ways to write a span put its pieces together.
    first, last = span_characters(context, window, start, end)
    return context[first:last]


def span_characters(context: str, window: Window, start: int, end: int) -> tuple[int, int]:
    """Return the characters [first, last) of positions `start` to `end`, with combining marks on the last one."""
    first = int(window.offsets_C2[start - window.context_start, 0])
    last = int(window.offsets_C2[end - window.context_start, 1])
    after = window.offsets_C2[end - window.context_start + 1 :, 0]
    # A piece whose accents are stripped ends before a combining mark at its end. Some tokenizers also strip spacing
    # marks, and then no piece has them.
    while last < len(context) and (
        unicodedata.category(context[last]) == "Mn"
        or (unicodedata.category(context[last]) in ("Mc", "Me") and not (after <= last).any())
    ):
        last += 1
    return first, last


STANDARD_RULES = QARules(
    name="standard",
    align=align_by_characters,
    cut=overlapping_spans,
    answerless_windows_are_impossible=True,
    final_sep_is_answerable=False,
    span_text=span_text,
    no_span_text="",
    skip_unanswered=False,
)


def _windows(
    example: QAExample, context: TokenizedContext, vocabulary: Vocabulary, config: WindowConfig
) -> list[Window]:
    whole_question = vocabulary.encode(example.question)
    question = whole_question[: config.max_question_length]
    num_tokens = len(context.ids_T)
    before = [vocabulary.cls_id, *question, *vocabulary.between_ids]
    num_before = len(before)
    room = config.max_sequence_length - num_before - 1
    if room < 1:
        raise UserError(
            f"question {example.example_id!r}: its {len(question)} word pieces leave no room for the context: make "
            f"max_sequence_length ({config.max_sequence_length}) larger or max_question_length "
            f"({config.max_question_length}) smaller"
        )
    spans = config.rules.cut(num_tokens, room=room, doc_stride=config.doc_stride)
    best_T = max_context_spans(spans, num_tokens)
    windows = []
    for index, (start, length) in enumerate(spans):
        tokens = slice(start, start + length)
        token_type_ids_L = np.repeat(np.array([0, 1], np.int32), [num_before, length + 1])
        answer_mask_L = token_type_ids_L.copy()
        answer_mask_L[0] = 1
        if not config.rules.final_sep_is_answerable:
            answer_mask_L[-1] = 0
        windows.append(
            Window(
                example_id=example.example_id,
                index=index,
                input_ids_L=np.array([*before, *context.ids_T[tokens], vocabulary.sep_id], np.int32),
                token_type_ids_L=token_type_ids_L,
                answer_mask_L=answer_mask_L,
                question_tokens=len(whole_question),
                context_start=num_before,
                first_piece=start,
                offsets_C2=context.offsets_T2[tokens],
                is_max_context_C=best_T[tokens] == index,
                start_position=None,
                end_position=None,
                is_impossible=None,
            )
        )
    return windows


def _with_target(window: Window, answer: tuple[int, int] | None, rules: QARules) -> Window:
    end_piece = window.first_piece + len(window.offsets_C2)
    if answer is not None and window.first_piece <= answer[0] and answer[1] < end_piece:
        shift = window.context_start - window.first_piece
        first, last, is_impossible = answer[0] + shift, answer[1] + shift, False
    else:
        first, last = 0, 0
        is_impossible = answer is None or rules.answerless_windows_are_impossible
    return dataclasses.replace(window, start_position=first, end_position=last, is_impossible=is_impossible)
