"""Where pre-training begins: parts of another model are taken by role, whatever variant each of them is."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from electra_jax import cli
from electra_jax.checkpoints import model_dir, orbax_store, warm_start
from electra_jax.checkpoints.model_record import Description, write_model_record
from electra_jax.checkpoints.warm_start import Initialized
from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.model.config import EncoderConfig
from electra_jax.model.electra import Electra, generator_config
from electra_jax.model.types import PyTree
from electra_jax.pretraining import registry, steps
from electra_jax.pretraining.correction import CorrectedDetection
from electra_jax.pretraining.masked_lm import MaskedLanguageModel
from electra_jax.pretraining.objective import Objective
from electra_jax.tasks.tokenizer import SpecialTokens
from electra_jax.tasks.vocabulary import Vocabulary, write_vocab_file
from support.finetuned_model import TOKENS
from support.hf_models import SUBSET
from support.objectives import COMPILE_FAST, CORRECTION
from support.tiny_model import OBJECTIVE, random_batch, small_encoder

Arrays = dict[str, np.ndarray]
MAIN = small_encoder()
SMALLER = generator_config(MAIN, width_fraction=0.5, depth_fraction=0.5, embedding_size=MAIN.embedding_size)
VOCABULARY = Vocabulary(TOKENS, True, True)
WORDS = MaskedLanguageModel(1.0)


def network(
    objective: Objective = OBJECTIVE,
    *,
    kind: str = "small",
    sharing: str = "es",
    main: EncoderConfig = MAIN,
    generator: EncoderConfig = SMALLER,
) -> nn.Module:
    return registry.make_model(
        objective, generator_kind=kind, embedding_sharing=sharing, generator=generator, discriminator=main
    )


MLM = functools.partial(network, WORDS, kind="none")


@functools.cache
def new(model: nn.Module) -> PyTree:
    make = jax.jit(lambda key: nn.unbox(steps.init_params(key, model, 8)), compiler_options=COMPILE_FAST)
    return make(jax.random.key(0))


def named(tree: PyTree) -> Arrays:
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(tree, sep="/").items()}


def trained(model: nn.Module, seed: int = 1) -> Arrays:
    """Parameters of chance, no two of which are the same; a LayerNorm is no longer 1 and 0."""
    draw = np.random.default_rng(seed)
    return {path: draw.normal(size=leaf.shape).astype(np.float32) for path, leaf in named(new(model)).items()}


def written(
    folder: Path, params: Arrays, vocabulary: Vocabulary | None = VOCABULARY, *, main: EncoderConfig = MAIN
) -> Path:
    """A model directory as far as a warm start looks at it."""
    folder.mkdir()
    write_model_record(path_of(folder), Description("encoder", main, None, False, None, (), {}))
    if vocabulary is not None:
        write_vocab_file(folder / "vocab.txt", vocabulary)
    writer = orbax_store.Checkpoints(folder, keep=1)
    writer.save(1, {"params": unflatten_dict(params, sep="/")}, {})
    writer.close()
    return folder


def started(
    folder: Path,
    model: nn.Module,
    vocabulary: Vocabulary = VOCABULARY,
    *,
    main: EncoderConfig = MAIN,
    map_vocabulary: bool = False,
    extend_positions: str | None = None,
) -> tuple[Initialized, Arrays]:
    choices = {"map_vocabulary": map_vocabulary, "extend_positions": extend_positions}
    found = warm_start.initialize_from(new(model), path_of(folder), vocabulary, encoder=main, **choices)
    return found, named(found.params)


def assert_under(found: Arrays, prefix: str, there: Mapping[str, np.ndarray], source: str) -> None:
    """Everything under a prefix is what stands under a prefix of the source, bit for bit."""
    names = [name for name in found if name.startswith(f"{prefix}/")]
    assert names
    for name in names:
        np.testing.assert_array_equal(found[name], there[name.replace(prefix, source, 1)], err_msg=name)


def test_the_encoder_of_an_mlm_run_becomes_the_discriminator(tmp_path: Path) -> None:
    """Its head predicts words and belongs to no discriminator; the generator is smaller, and new."""
    there = trained(MLM())
    taken, found = started(written(tmp_path / "mlm", there), network())
    assert (taken.taken, taken.left_over) == (["discriminator/encoder", "embeddings"], ["generator"])
    assert taken.new == ["discriminator/head", "generator"]
    assert_under(found, "discriminator/encoder", there, "discriminator/encoder")
    assert_under(found, "embeddings", there, "embeddings")
    before = named(new(network()))
    assert_under(found, "generator", before, "generator")
    (note,) = taken.notes
    assert note.startswith("the generator is new, because it has other sizes (generator/encoder/")
    assert str(taken).splitlines()[1:] == [
        "  taken: discriminator/encoder, embeddings",
        "  new: discriminator/head, generator",
        "  left over: generator",
        f"  {note}",
        "  the optimizer and the step are new",
    ]
    assert taken.record["new"] == taken.new


def test_an_mlm_run_of_the_generators_sizes_becomes_the_generator(tmp_path: Path) -> None:
    there = trained(MLM(main=SMALLER))
    taken, found = started(written(tmp_path / "mlm", there), network())
    assert (taken.taken, taken.new, taken.left_over) == (["embeddings", "generator"], ["discriminator"], [])
    assert_under(found, "generator/encoder", there, "discriminator/encoder")
    assert_under(found, "generator/head", there, "generator/head")
    assert taken.notes[0].startswith("the discriminator is new, because it has other sizes (discriminator/encoder/")


def test_an_mlm_run_of_both_sizes_becomes_both(tmp_path: Path) -> None:
    """ELECTRA's two-stage training."""
    there = trained(MLM())
    taken, found = started(written(tmp_path / "mlm", there), network(generator=MAIN, sharing="nes"))
    assert taken.new == ["discriminator/head"]
    for tower in ("discriminator", "generator"):
        assert_under(found, f"{tower}/encoder", there, "discriminator/encoder")
    assert_under(found, "generator/embeddings", there, "embeddings")
    assert_under(found, "generator/head", there, "generator/head")


def test_a_pair_gives_each_tower_and_its_generator_only_where_it_fits(tmp_path: Path) -> None:
    there = trained(network())
    folder = written(tmp_path / "pair", there)
    taken, found = started(folder, network())
    assert (taken.new, taken.left_over, taken.notes) == ([], [], [])
    assert all(np.array_equal(found[name], there[name]) for name in there)
    wider = generator_config(MAIN, width_fraction=1.0, depth_fraction=0.5, embedding_size=MAIN.embedding_size)
    taken, found = started(folder, network(generator=wider))
    assert (taken.new, taken.left_over) == (["generator"], ["generator"])
    assert_under(found, "discriminator", there, "discriminator")
    # A tower that predicts words has a head that the pair's main tower lacks.
    taken, found = started(folder, MLM())
    assert (taken.new, taken.left_over) == (["generator"], ["discriminator/head", "generator"])
    assert_under(found, "discriminator/encoder", there, "discriminator/encoder")


def test_a_head_that_chooses_among_candidates_is_new_or_left_behind(tmp_path: Path) -> None:
    correcting = network(CorrectedDetection(**CORRECTION))
    pair, chooses = trained(network()), trained(correcting)
    taken, found = started(written(tmp_path / "pair", pair), correcting)
    assert (taken.new, taken.left_over) == (["discriminator/correction"], [])
    assert all(np.array_equal(found[name], pair[name]) for name in pair)
    taken, _ = started(written(tmp_path / "chooses", chooses), network())
    assert (taken.new, taken.left_over, taken.notes) == ([], ["discriminator/correction"], [])


def test_disentangled_embeddings_take_the_shared_ones_and_their_layer_norm(tmp_path: Path) -> None:
    there = trained(network())
    taken, found = started(written(tmp_path / "es", there), network(sharing="gdes"))
    assert (taken.new, taken.left_over) == ([], [])
    assert_under(found, "embeddings", there, "embeddings")
    assert_under(found, "discriminator/embeddings/layer_norm", there, "embeddings/layer_norm")
    assert not found["discriminator/embeddings/word_embeddings"].any()
    # The discriminator reads the same text as the same numbers.
    ids = jax.numpy.asarray(random_batch(2, 32)["input_ids"])
    tokens = steps.Tokens(ids, ids * 0, ids * 0 + 1)
    shared, disentangled = (
        network(sharing=sharing).apply({"params": params}, tokens, deterministic=True, method=Electra.discriminate)
        for sharing, params in (("es", unflatten_dict(there, sep="/")), ("gdes", taken.params))
    )
    np.testing.assert_array_equal(shared, disentangled)


@pytest.mark.parametrize("sharing", ["es", "nes"])
def test_disentangled_embeddings_become_plain_ones(tmp_path: Path, sharing: str) -> None:
    there = trained(network(sharing="gdes"))
    taken, found = started(written(tmp_path / "gdes", there), network(sharing=sharing))
    assert taken.new == []
    table = "embeddings/word_embeddings"
    np.testing.assert_array_equal(found[table], there[table] + there[f"discriminator/{table}"])
    assert_under(found, "embeddings/layer_norm", there, "discriminator/embeddings/layer_norm")
    if sharing == "nes":
        assert_under(found, "generator/embeddings", there, "embeddings")


def test_separate_embeddings_are_disentangled(tmp_path: Path) -> None:
    there = trained(network(sharing="nes"))
    taken, found = started(written(tmp_path / "nes", there), network(sharing="gdes"))
    assert (taken.new, taken.left_over) == ([], [])
    table = "embeddings/word_embeddings"
    np.testing.assert_array_equal(found[table], there[f"generator/{table}"])
    np.testing.assert_allclose(found[table] + found[f"discriminator/{table}"], there[table], atol=1e-6)
    assert_under(found, "discriminator/embeddings/layer_norm", there, "embeddings/layer_norm")
    # The same variant is taken as it is.
    _, same = started(tmp_path / "nes", network(sharing="nes"))
    assert all(np.array_equal(same[name], there[name]) for name in there)


def test_an_encoder_alone_becomes_the_discriminator_and_no_generator(tmp_path: Path) -> None:
    """As `electra import` writes BERT; also where the generator has its sizes."""
    there = {name: leaf for name, leaf in trained(MLM()).items() if not name.startswith("generator/")}
    taken, found = started(written(tmp_path / "bert", there), network(generator=MAIN))
    assert (taken.new, taken.left_over) == (["discriminator/head", "generator"], [])
    assert_under(found, "discriminator/encoder", there, "discriminator/encoder")


def test_an_imported_directory_starts_replaced_token_detection(tmp_path: Path) -> None:
    """One that transformers wrote: a discriminator with its head."""
    assert cli.main(["import", str(SUBSET / "pretraining"), str(tmp_path / "model")]) == 0
    there = model_dir.load(tmp_path / "model")
    main = there.description.discriminator
    smaller = generator_config(main, width_fraction=0.5, depth_fraction=1.0, embedding_size=main.embedding_size)
    model = network(main=main, generator=smaller, sharing="gdes")
    taken, found = started(tmp_path / "model", model, main=main)
    assert (taken.new, taken.left_over) == (["generator"], [])
    assert_under(found, "discriminator/encoder", named(there.params), "discriminator/encoder")
    assert_under(found, "discriminator/head", named(there.params), "discriminator/head")
    assert_under(found, "discriminator/embeddings/layer_norm", named(there.params), "embeddings/layer_norm")


def test_a_model_without_a_tower_of_these_sizes_is_refused(tmp_path: Path) -> None:
    larger = dataclasses.replace(MAIN, intermediate_size=48)
    for name, model in (("mlm", MLM(main=larger)), ("pair", network(main=larger))):
        folder = written(tmp_path / name, trained(model))
        with pytest.raises(
            UserError, match=r"is of another model: .*layers/intermediate/bias \(2, 48\) there, \(2, 32\) h"
        ):
            started(folder, network())


def test_modern_blocks_are_taken_by_role_and_by_no_other_block(tmp_path: Path) -> None:
    rotary = dataclasses.replace(MAIN, position_embedding_type="rotary", gated_mlp=True, type_vocab_size=0)
    modern = dataclasses.replace(rotary, norm_placement="pre")
    generator = generator_config(modern, width_fraction=1.0, depth_fraction=0.5, embedding_size=modern.embedding_size)
    there = trained(MLM(main=modern))
    folder = written(tmp_path / "modern", there, main=modern)
    here = network(main=modern, generator=generator, sharing="gdes")
    taken, found = started(folder, here, main=modern)
    assert taken.new == ["discriminator/head", "generator"]
    assert_under(found, "discriminator/encoder", there, "discriminator/encoder")
    assert_under(found, "discriminator/embeddings/layer_norm", there, "embeddings/layer_norm")
    # LayerNorm elsewhere has parameters of the same names.
    with pytest.raises(UserError, match="norm_placement 'pre' there, 'post' here"):
        started(folder, here, main=rotary)
    # BERT's encoder has no gate, and has a table of positions.
    with pytest.raises(UserError, match=r"embeddings/position_embeddings missing there, \(32, 8\) here"):
        started(folder, network(), main=modern)
    with pytest.raises(UserError, match=r"embeddings/position_embeddings \(32, 8\) there, missing here"):
        started(written(tmp_path / "bert", trained(MLM())), network(main=rotary, generator=generator), main=rotary)


def other_vocabulary() -> Vocabulary:
    """Sixty tokens of the usual one in another order, and ten that it lacks."""
    return Vocabulary([*TOKENS[:5], *reversed(TOKENS[9:]), *(f"new{number}" for number in range(10))], True, True)


def test_another_vocabulary_is_refused_or_mapped_by_token(tmp_path: Path) -> None:
    there = trained(network())
    folder, vocabulary = written(tmp_path / "pair", there), other_vocabulary()
    sizes = {"vocab_size": len(vocabulary.tokens)}
    here = network(main=dataclasses.replace(MAIN, **sizes), generator=dataclasses.replace(SMALLER, **sizes))
    with pytest.raises(UserError, match=r"MAP_VOCABULARY=True to take the rows of the 60 of 70 tokens"):
        started(folder, here, vocabulary)
    taken, found = started(folder, here, vocabulary, map_vocabulary=True)
    assert taken.notes == ["rows of the vocabulary: 60 of 70 by token, 0 as the mean of their pieces, 10 new"]
    fresh = named(new(here))
    for name in ("embeddings/word_embeddings", "generator/head/output_bias"):
        rows = [TOKENS.index(token) for token in vocabulary.tokens[:60]]
        np.testing.assert_array_equal(found[name][:60], there[name][rows])
        np.testing.assert_array_equal(found[name][60:], fresh[name][60:])
    assert_under(found, "discriminator", there, "discriminator")
    stranger = Vocabulary([f"[{number}]" for number in range(70)], True, True)
    with pytest.raises(UserError, match=r"has no token of TOKENIZER: set --gin.*vocab\.txt"):
        started(folder, here, stranger, map_vocabulary=True)


def test_a_new_token_starts_from_the_mean_of_its_pieces(tmp_path: Path) -> None:
    old = Vocabulary([*TOKENS[:5], "un", "##like", "##ly", "like", *(f"w{n}" for n in range(55))], True, True)
    there = trained(network())
    folder = written(tmp_path / "pair", there, old)
    vocabulary = Vocabulary(
        [*TOKENS[:5], "unlike", "like", "un", "##like", "unlikely", "zzz", "##likely", *old.tokens[9:61]], True, True
    )
    taken, found = started(folder, network(), vocabulary, map_vocabulary=True)
    assert taken.notes == ["rows of the vocabulary: 60 of 64 by token, 3 as the mean of their pieces, 1 new"]
    table, now = there["embeddings/word_embeddings"], found["embeddings/word_embeddings"]
    np.testing.assert_allclose(now[5], (table[5] + table[6]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(now[6], table[8])
    np.testing.assert_allclose(now[9], (table[5] + table[6] + table[7]) / 3, rtol=1e-6)
    np.testing.assert_array_equal(now[10], named(new(network()))["embeddings/word_embeddings"][10])
    # The end of a word is read as a word is.
    np.testing.assert_allclose(now[11], (table[8] + table[7]) / 2, rtol=1e-6)


def test_rows_that_pad_a_table_are_added_and_left_out(tmp_path: Path) -> None:
    sizes = {"pad_vocab_size_multiple": 50}
    wide = dataclasses.replace(MAIN, **sizes)
    padded = network(main=wide, generator=dataclasses.replace(SMALLER, **sizes))
    names = ("embeddings/word_embeddings", "generator/head/output_bias")
    there = trained(network())
    taken, found = started(written(tmp_path / "bare", there), padded, main=wide)
    assert (taken.new, taken.left_over, taken.notes) == ([], [], [])
    for name in names:
        np.testing.assert_array_equal(found[name][:64], there[name])
        np.testing.assert_array_equal(found[name][64:], named(new(padded))[name][64:])
    there = trained(padded)
    folder = written(tmp_path / "padded", there, main=wide)
    _, found = started(folder, network())
    for name in names:
        np.testing.assert_array_equal(found[name], there[name][:64])
    _, again = started(folder, padded, main=wide)
    assert all(np.array_equal(again[name], there[name]) for name in there)
    _, mapped = started(folder, padded, Vocabulary([*TOKENS[:63], "new"], True, True), main=wide, map_vocabulary=True)
    np.testing.assert_array_equal(mapped[names[0]][:63], there[names[0]][:63])
    np.testing.assert_array_equal(mapped[names[0]][64:], named(new(padded))[names[0]][64:])


def test_a_table_of_positions_is_made_longer_or_refused(tmp_path: Path) -> None:
    there = trained(network())
    folder = written(tmp_path / "pair", there)
    longer = dataclasses.replace(MAIN, max_position_embeddings=70)
    here = network(main=longer, generator=dataclasses.replace(SMALLER, max_position_embeddings=70))
    with pytest.raises(UserError, match=r"has learned 32 positions, and this run 70: set --gin\.EXTEND_POSITIONS="):
        started(folder, here, main=longer)
    name = "embeddings/position_embeddings"
    taken, copied = started(folder, here, main=longer, extend_positions="copy")
    assert taken.notes == ["positions 32 to 70 are new rows (EXTEND_POSITIONS 'copy')"]
    np.testing.assert_array_equal(copied[name], np.concatenate([there[name], there[name], there[name][:6]]))
    _, between = started(folder, here, main=longer, extend_positions="interpolate")
    np.testing.assert_allclose(between[name][[0, 69]], there[name][[0, 31]], rtol=1e-6)
    # Row 23 of 0 to 69 stands at 23 * 31 / 69 = 10 1/3 of 0 to 31.
    np.testing.assert_allclose(between[name][23], (2 * there[name][10] + there[name][11]) / 3, rtol=1e-4, atol=1e-6)
    assert_under(between, "discriminator", there, "discriminator")


class OtherNames(Vocabulary):
    """A vocabulary that spells its special tokens as RoBERTa does."""

    special = SpecialTokens(pad="<pad>", unk="<unk>", cls="<s>", sep="</s>", mask="<mask>")


def test_special_tokens_are_the_same_by_their_roles(tmp_path: Path) -> None:
    there = trained(network())
    folder = written(tmp_path / "pair", there)
    here = OtherNames(["<s>", "<pad>", "</s>", "<unk>", *TOKENS[5:], "<mask>"], True, True)
    taken, found = started(folder, network(), here, map_vocabulary=True)
    assert taken.notes == ["rows of the vocabulary: 64 of 64 by token, 0 as the mean of their pieces, 0 new"]
    rows = [*(TOKENS.index(token) for token in ("[CLS]", "[PAD]", "[SEP]", "[UNK]")), *range(5, 64)]
    table = "embeddings/word_embeddings"
    np.testing.assert_array_equal(found[table], there[table][[*rows, TOKENS.index("[MASK]")]])


def test_a_generator_that_shall_not_be_trained_must_be_there(tmp_path: Path) -> None:
    sized = written(tmp_path / "sized", trained(MLM(main=SMALLER)))
    larger = written(tmp_path / "larger", trained(MLM()))
    for sharing in ("gdes", "nes"):
        here = network(sharing=sharing)
        started(sized, here)[0].check_generator(sharing)
        with pytest.raises(
            UserError, match=r"has no generator for it \(the generator is new, because it has other sizes"
        ):
            started(larger, here)[0].check_generator(sharing)


def test_the_same_vocabulary_needs_no_mapping(tmp_path: Path) -> None:
    there = trained(network())
    bare = written(tmp_path / "bare", there, None)
    for folder in (bare, written(tmp_path / "pair", there)):
        taken, found = started(folder, network(), map_vocabulary=True)
        assert taken.notes == []
        assert all(np.array_equal(found[name], there[name]) for name in there)


def test_the_record_is_json(tmp_path: Path) -> None:
    taken, _ = started(written(tmp_path / "mlm", trained(MLM())), network())
    record: dict[str, Any] = taken.record
    assert record.keys() == {"source", "taken", "new", "left_over", "notes"}
    assert record["source"] == str(tmp_path / "mlm")
