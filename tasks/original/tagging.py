"""Tag exactly as the original's `finetune/tagging`, faults included, for comparison."""

import unicodedata
from collections.abc import Iterable, Sequence

from electra_jax.tasks.tagging.conlleval import OUTSIDE, Span, split_tag
from electra_jax.tasks.tagging.sentences import TaggedSentence, TaggingRules, encoded_tags
from electra_jax.tasks.vocabulary import Vocabulary

# ASCII characters that BERT treats as punctuation although Unicode calls them symbols.
_SYMBOLS = "$+<=>^`|~"


def read_spans(tags: Sequence[str]) -> list[Span]:
    """Read the entities of one sentence as the original does.

    An entity ends only before B, S and O, not after E or S or at a change of type, and has the type of its last tag.
    So `E-NP E-NP` is one entity (conlleval: two) and `B-NP I-VP` one VP (conlleval: an NP and a VP).
    """
    spans: list[Span] = []
    start = 0
    last = OUTSIDE
    for i, tag in enumerate([*tags, OUTSIDE]):
        borders = tag == OUTSIDE or split_tag(tag)[0] in ("B", "S")
        if borders and last != OUTSIDE:
            spans.append(Span(start, i - 1, split_tag(last)[1]))
        if borders or last == OUTSIDE:
            start = i
        last = tag
    return spans


def word_pieces(words: Sequence[str], vocabulary: Vocabulary) -> list[list[int]]:
    """Return the word pieces of each word as the original's `tokenize_and_align` makes them.

    It does not separate ideographs, so that a word of two is `first ##second`; a word that cleaning empties has no
    pieces; and the words "[CLS]" and "[SEP]" become the special tokens.
    """
    special = {"[CLS]": vocabulary.cls_id, "[SEP]": vocabulary.sep_id}
    pieces = []
    for word in words:
        cleaned = _clean(word)
        if cleaned in special:
            pieces.append([special[cleaned]])
            continue
        if vocabulary.lowercase:
            cleaned = cleaned.lower()
        if vocabulary.strip_accents:
            decomposed = unicodedata.normalize("NFD", cleaned)
            cleaned = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
        parts = [part for run in _split_at_punctuation(cleaned) for part in run.split()]
        pieces.append([token.id for part in parts for token in vocabulary.tokenizer.model.tokenize(part)])
    return pieces


def align(words: Sequence[str], vocabulary: Vocabulary, length: int) -> tuple[list[int], list[int]]:
    """Place words as the original: return the token ids, and the position of the first piece of each tagged word.

    Three faults: the sentence is cut as if every later word took one more token (60 words of one piece at length
    64 keep one), which at the published length of 256 affects sentences of about 128 words or more; the position
    of a word without pieces, such as U+200B, is that of the next word, so that the label of the later one is learnt
    there; and a word "[CLS]" has no position, so that the labels of the words after it move by one. Where the
    original stops with an assertion, at a word longer than the remaining room, the sentence is cut.
    """
    pieces = [[vocabulary.cls_id], *word_pieces(words, vocabulary), [vocabulary.sep_id]]
    input_ids: list[int] = []
    positions: list[int] = []
    for ids in pieces:
        if len(pieces) + len(input_ids) + 1 > length:
            input_ids.append(vocabulary.sep_id)
            break
        if vocabulary.cls_id not in ids and vocabulary.sep_id not in ids:
            positions.append(len(input_ids))
        input_ids += ids
    if len(input_ids) > length:
        input_ids = [*input_ids[: length - 1], vocabulary.sep_id]
    return input_ids, [position for position in positions if position < length]


def observed_labels(splits: Iterable[Sequence[TaggedSentence]], encoding: str) -> list[str]:
    """Return the tags that occur in any split, sorted: the original's label set."""
    return sorted(
        {
            tag
            for sentences in splits
            for sentence in sentences
            for tag in encoded_tags(sentence.tags, spans_of=read_spans, encoding=encoding)
        }
    )


RULES = TaggingRules(
    name="original",
    spans_of=read_spans,
    align=align,
    token_type_id=1,
    labels=observed_labels,
    # The original does not read IOB1.
    encoding_of={"IOB1": "BIO", "IOB2": "BIO", "IOBES": "BIOES", "IO": "IO"},
)


def _clean(word: str) -> str:
    kept = (c for c in word if c in "\t\n\r" or (unicodedata.category(c)[0] != "C" and c != "\ufffd"))
    return "".join(" " if c in "\t\n\r" or unicodedata.category(c) == "Zs" else c for c in kept)


def _split_at_punctuation(text: str) -> list[str]:
    parts: list[str] = []
    in_word = False
    for character in text:
        punctuation = character in _SYMBOLS or unicodedata.category(character)[0] == "P"
        if in_word and not punctuation:
            parts[-1] += character
        else:
            parts.append(character)
        in_word = not punctuation
    return parts
