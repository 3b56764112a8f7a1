"""Judge a run's health by its own numbers: the thresholds with their reasons, and the checks.

A small model or a young run is far from the published curve at the same step and can still be healthy: at sampling
temperature 1 a tiny discriminator stays at an AUC of 0.54 to 0.61 and flags nothing for millions of tokens
(bench/RESULTS.md). So a run is compared with what is possible (the loss of a uniform guess, of a constant answer) and
with its own past.

The thresholds are not hyperparameters: training does not depend on them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from electra_jax.monitoring.history import Window, mean

# The present is an average over this many windows.
RECENT = 3
# The generator's loss divided by that of a uniform guess, ln V: a new model begins within 1 % of it, and the noise of a
# window is 0.05 nats.
UNIFORM_FACTOR = 1.25
# A rise of the generator's loss above its best, in nats: ten times the noise of a window. The loss of the published run
# falls by 0.9 in total from step 20,000 on.
GENERATOR_RISE = 0.5
# A generator has collapsed if its accuracy was once at least this, over twice that of always naming the most frequent
# word ...
GENERATOR_READ = 0.1
# ... and is now below this share of its best.
GENERATOR_LOST = 0.2
# The share of pairs of samples in a text that are the same token: 0.5 if 7 samples in 10 are one token. Words drawn by
# frequency give 0.01 to 0.02, and an alphabet of four letters gives 0.25.
REPETITION = 0.5
# A generator with this accuracy leaves hardly any replaced token; the published one reaches 0.45.
GENERATOR_ALL = 0.9
# A generator with this accuracy reads its context: frequencies, and copying the 15 % not hidden, give 0.2.
GENERATOR_GOOD = 0.3
# An AUC below this is indistinguishable from 0.5 within a window or two; the smallest good runs measured have 0.53.
CHANCE_AUC = 0.52
# Below this recall, practically every token is called original.
SILENT_RECALL = 0.02
# Within this many tokens a generator learns little but frequencies, so a discriminator at chance is no fault.
PLATEAU_TOKENS = 100e6
# The plateau also ends after this many epochs of a small text, when there is nothing more to learn: up to 4 epochs are
# nearly as good as new text, and from 40 on repeating is worth nothing (Muennighoff et al. 2023, arXiv:2305.16264,
# figure 1).
PLATEAU_EPOCHS = 40
# Tokens of the published run at its first published point, 20,000 steps of 128 x 128: the early spike and dip are over.
REFERENCE_TOKENS = 330e6
# Tokens of 100,000 such steps. At 200,000 steps the published run flags a quarter of the replaced tokens: its accuracy
# of 0.929, precision of 0.737 and share of replaced tokens of 0.15 x (1 - 0.433) give a recall of 0.26.
FLAGGING_TOKENS = 1.6e9
# ln 2 is the loss of tossing a coin, which a new discriminator has; half as much again is worse than guessing.
COIN_FACTOR = 1.5
# Learning only the bias reaches the loss of always answering the share of replaced tokens.
CONSTANT_FACTOR = 1.2
# The sum of learning rates after which Adam has certainly taught a head its bias: 2 in logits is 0.16 at width 16.
BIAS_TRAVELLED = 0.2
# A fall of the AUC within the second half of a run so far: five times the noise of a window.
AUC_FALL = 0.03
# That half must have at least this many windows, so that its first and its last third are averages.
HALF_WINDOWS = 6
# A generator that gains this many nats meanwhile makes harder fakes, which explains the early dip of every good run.
GENERATOR_GAIN = 0.1
# The first million tokens are spent on the warm-up and on frequencies; no trend within them means anything.
TREND_TOKENS = 2e6


@dataclass(frozen=True)
class Setting:
    """The part of a run's configuration that is needed to interpret its numbers.

    Attributes:
        vocab_size: V, the size of the vocabulary.
        batch_size: examples in a step, by which the published steps are scaled.
        generator_learns: whether there is a generator that is trained.
        judges_every_token: whether the discriminator answers "was this token replaced?" for every real token.
        differences: the differences from the published run; empty if the two curves can be compared.
    """

    vocab_size: int
    batch_size: int
    generator_learns: bool
    judges_every_token: bool
    differences: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """Something unusual in a run, in words for a person.

    Attributes:
        name: a short name, always the same for a check.
        step: the last update that was checked.
        words: what was seen, in a sentence or two.
        cause: what usually causes it.
        remedy: what to try.
    """

    name: str
    step: int
    words: str
    cause: str
    remedy: str


def constant_guess_loss(unreplaced_share: float) -> float:
    """Return the cross-entropy in nats of always answering the share of replaced tokens: the cost of not reading."""
    if not 0 < unreplaced_share < 1:
        return math.nan
    replaced = 1 - unreplaced_share
    return -unreplaced_share * math.log(unreplaced_share) - replaced * math.log(replaced)


def generator_scale(windows: Sequence[Window], setting: Setting) -> Finding | None:
    """Find a generator that is worse than guessing uniformly."""
    loss, uniform = windows[-1]["generator_loss"], math.log(setting.vocab_size)
    if not (setting.generator_learns and loss > UNIFORM_FACTOR * uniform):
        return None
    return Finding(
        "generator_scale",
        windows[-1].step,
        f"The generator's loss is {loss:.2f} nats, and guessing uniformly among {setting.vocab_size:,} tokens costs "
        f"only ln V = {uniform:.2f}, which is where a new generator begins.",
        "a learning rate that is too high or has no warm-up; weights of another vocabulary; initial weights that are "
        "too wide",
        "lower LEARNING_RATE or lengthen WARMUP_STEPS; if the very first loss is above ln V, check TOKENIZER, "
        "INIT_FROM and initializer_range",
    )


def generator_rising(windows: Sequence[Window], setting: Setting) -> Finding | None:
    """Find a generator whose loss has risen far above its best."""
    losses = [window["generator_loss"] for window in windows]
    if not setting.generator_learns or len(losses) <= RECENT:
        return None
    best = min(losses)
    if not min(losses[-RECENT:]) > best + GENERATOR_RISE:
        return None
    return Finding(
        "generator_rising",
        windows[-1].step,
        f"The generator has collapsed: its loss rose from {best:.2f} nats at step "
        f"{windows[losses.index(best)].step:,} to {losses[-1]:.2f} and stays there.",
        "most often a learning rate that is too high for this model; else text that changes along the corpus",
        "go back to a checkpoint from before the rise with a lower LEARNING_RATE, or start again with a longer "
        "WARMUP_STEPS",
    )


def generator_lost(windows: Sequence[Window], setting: Setting) -> Finding | None:
    """Find a generator that once restored tokens and no longer does."""
    best, now = max(window["generator_accuracy"] for window in windows), mean(windows[-RECENT:], "generator_accuracy")
    if not (setting.generator_learns and best >= GENERATOR_READ and now < GENERATOR_LOST * best):
        return None
    return Finding(
        "generator_lost",
        windows[-1].step,
        f"The generator has collapsed: it restored {best:.1%} of the hidden tokens, and now {now:.1%}.",
        "a learning rate that is too high, or a disc_weight so high that the shared embeddings serve the discriminator "
        "alone",
        "lower LEARNING_RATE or disc_weight, or separate the embeddings with gin/objectives/gdes.gin",
    )


def generator_one_token(windows: Sequence[Window], setting: Setting) -> Finding | None:
    """Find a generator whose samples are all alike."""
    repetition = mean(windows[-RECENT:], "generator_repetition")
    if not (setting.generator_learns and len(windows) >= RECENT and repetition > REPETITION):
        return None
    return Finding(
        "generator_one_token",
        windows[-1].step,
        f"The generator has collapsed: of any two tokens that it samples in a text, {repetition:.0%} are the same.",
        "a temperature so low that only the most frequent token is drawn, or a generator that has learnt nothing else",
        "set temperature to 1; if it is, lower LEARNING_RATE, and see that the corpus is not one word over and over",
    )


def generator_ahead(windows: Sequence[Window], setting: Setting) -> Finding | None:
    """Find a generator whose samples are hardly distinguishable from the text."""
    recent = windows[-RECENT:]
    accuracy, area = mean(recent, "generator_accuracy"), mean(recent, "discriminator_auc")
    at_chance = setting.judges_every_token and area < CHANCE_AUC and not _untaught(windows, setting)
    if not setting.generator_learns or len(windows) < RECENT:
        return None
    if not (accuracy >= GENERATOR_ALL or (at_chance and accuracy >= GENERATOR_GOOD)):
        return None
    if at_chance:
        words = f"and the discriminator cannot tell its samples from the text (AUC {area:.3f})"
        cause = (
            "a generator that is too large for its discriminator or learns much faster, so that replacements are too "
            "good before the discriminator has learnt to find bad ones"
        )
        remedy = (
            "make it smaller (generator_width_fraction 0.25), raise disc_weight, or sample at a temperature above 1"
        )
    else:
        words = "so that hardly any token is replaced and the discriminator has little to learn"
        cause = (
            "text that repeats itself, a vocabulary that makes most of it [UNK], or a generator that sees the answer"
        )
        remedy = "look at the passages of `electra evaluate`; check TOKENIZER and the corpus"
    return Finding(
        "generator_ahead",
        windows[-1].step,
        f"The generator is far ahead: it restores {accuracy:.1%} of the hidden tokens, {words}.",
        cause,
        remedy,
    )


def discriminator_scale(windows: Sequence[Window], setting: Setting) -> Finding | None:
    """Find a discriminator's loss that is impossibly low for its AUC, or worse than tossing a coin."""
    last = windows[-1]
    loss, area = last["discriminator_loss"], last["discriminator_auc"]
    constant = constant_guess_loss(last["unreplaced_share"])
    if not setting.judges_every_token:
        return None
    if loss > COIN_FACTOR * math.log(2):
        words = f"is {loss:.2f} nats per token, and tossing a coin costs only ln 2 = 0.69, where a new one begins"
    # A discriminator that finds a share s of the replaced tokens with certainty, and none of the rest, has the AUC
    # 1 - (1 - s) / 2 and a loss of (1 - s) times that of a constant answer. Half that loss is impossible at this AUC.
    elif loss < (1 - area) * constant:
        words = (
            f"is {loss:.3f} nats per token, less than an AUC of {area:.3f} with {1 - last['unreplaced_share']:.1%} "
            "replaced tokens can have"
        )
    else:
        return None
    return Finding(
        "discriminator_scale",
        last.step,
        f"The discriminator's loss {words}.",
        "a learning rate that is too high where it is large; a mean over padding or over another number of tokens "
        "where it is small",
        "lower LEARNING_RATE; if you changed the loss, divide its sum by the number of real tokens",
    )


def discriminator_untaught(windows: Sequence[Window], setting: Setting) -> Finding | None:
    """Find a discriminator that has not learnt even how rare replaced tokens are."""
    if not _untaught(windows, setting):
        return None
    loss, share = windows[-1]["discriminator_loss"], windows[-1]["unreplaced_share"]
    return Finding(
        "discriminator_untaught",
        windows[-1].step,
        f"The discriminator is not learning: its loss of {loss:.3f} nats is above the {constant_guess_loss(share):.3f} "
        f"of answering {1 - share:.1%}, the share of replaced tokens, everywhere.",
        "a disc_weight of 0 or near it, weights that no gradient reaches, or a learning rate so high that it "
        "jumps about",
        "check disc_weight (50 as published); lower LEARNING_RATE",
    )


def _untaught(windows: Sequence[Window], setting: Setting) -> bool:
    constant = constant_guess_loss(windows[-1]["unreplaced_share"])
    # Steps that trained only the generator do not count.
    judged = [window for window in windows[:-1] if math.isfinite(window["discriminator_loss"])]
    travelled = sum(window.travelled for window in judged)
    return (
        setting.judges_every_token
        and travelled > BIAS_TRAVELLED
        and windows[-1]["discriminator_loss"] > CONSTANT_FACTOR * constant
    )


def discriminator_all_original(windows: Sequence[Window], setting: Setting) -> Finding | None:
    """Find a discriminator that flags nothing, long after a good one does."""
    recent = windows[-RECENT:]
    recall, area = mean(recent, "discriminator_recall"), mean(recent, "discriminator_auc")
    tokens = sum(window.tokens for window in windows)
    late = tokens > FLAGGING_TOKENS or (_after_plateau(windows) and area < CHANCE_AUC)
    if not (setting.judges_every_token and len(windows) >= RECENT and recall < SILENT_RECALL):
        return None
    if not (late or _fallen(windows)):
        return None
    return Finding(
        "discriminator_all_original",
        windows[-1].step,
        f"The discriminator calls every token original: it flags {recall:.1%} of the replaced ones (AUC {area:.3f}). "
        "Its accuracy is only the share of unreplaced tokens.",
        "a learning rate at which it collapsed; a disc_weight that is too low; too few masked tokens; or a generator "
        "that is too good",
        "lower LEARNING_RATE if the AUC was once higher; else raise disc_weight, MASK_PROB or the temperature, or make "
        "the generator smaller",
    )


def discriminator_at_chance(windows: Sequence[Window], setting: Setting) -> Finding | None:
    """Find a discriminator that flags the wrong tokens, after the generator's plateau is over."""
    recent = windows[-RECENT:]
    recall, area = mean(recent, "discriminator_recall"), mean(recent, "discriminator_auc")
    good = mean(recent, "generator_accuracy") >= GENERATOR_GOOD
    if not (setting.judges_every_token and area < CHANCE_AUC and recall >= SILENT_RECALL) or good:
        return None
    if not _after_plateau(windows) or _untaught(windows, setting):
        return None
    return Finding(
        "discriminator_at_chance",
        windows[-1].step,
        f"The discriminator tells nothing: its AUC is {area:.3f}, and 0.5 is guessing.",
        "text without context (shuffled words, lists), or too little of it; a disc_weight that is too low, or labels "
        "that do not belong to the tokens",
        "look at the passages of `electra evaluate`; check the corpus and disc_weight",
    )


def _after_plateau(windows: Sequence[Window]) -> bool:
    """Return whether a generator has read enough to learn more than frequencies, if its text offers more."""
    return sum(window.tokens for window in windows) > PLATEAU_TOKENS or windows[-1].epoch > PLATEAU_EPOCHS


def auc_falling(windows: Sequence[Window], setting: Setting) -> Finding | None:
    """Find an AUC that falls for half of the run without the generator improving."""
    if not (setting.judges_every_token and _fallen(windows)):
        return None
    half = _second_half(windows)
    first, last = mean(half[: len(half) // 3], "discriminator_auc"), mean(half[-len(half) // 3 :], "discriminator_auc")
    return Finding(
        "auc_falling",
        windows[-1].step,
        f"The discriminator's AUC has been falling for long: from {first:.3f} about step {half[0].step:,} to "
        f"{last:.3f}. An early dip is usual, because a generator that improves makes harder fakes; this is another.",
        "a learning rate that is too high late in the run, or a generator that leaves its discriminator behind",
        "lower LEARNING_RATE; a smaller generator (generator_width_fraction), a higher disc_weight, or gdes.gin",
    )


def _second_half(windows: Sequence[Window]) -> Sequence[Window]:
    """Return the windows of the later half of the tokens."""
    left = sum(window.tokens for window in windows) / 2
    for index, window in enumerate(windows):
        left -= window.tokens
        if left < 0:
            return windows[index:]
    return windows


def _fallen(windows: Sequence[Window]) -> bool:
    half, tokens = _second_half(windows), sum(window.tokens for window in windows)
    if len(half) < HALF_WINDOWS or tokens < TREND_TOKENS:
        return False
    first, last = half[: len(half) // 3], half[-len(half) // 3 :]
    gained = mean(first, "generator_loss") - mean(last, "generator_loss")
    fall = mean(first, "discriminator_auc") - mean(last, "discriminator_auc")
    return fall > AUC_FALL and (gained < GENERATOR_GAIN or tokens > REFERENCE_TOKENS)


CHECKS: tuple[Callable[[Sequence[Window], Setting], Finding | None], ...] = (
    generator_scale,
    generator_rising,
    generator_lost,
    generator_one_token,
    generator_ahead,
    discriminator_scale,
    discriminator_untaught,
    discriminator_all_original,
    discriminator_at_chance,
    auc_falling,
)
