"""Initialize a new run from the weights of a model directory."""

from collections.abc import Iterable

from etils import epath

from electra_jax.checkpoints import model_dir
from electra_jax.checkpoints.orbax_store import named_shapes
from electra_jax.distributed.processes import print_on_leader
from electra_jax.errors import UserError
from electra_jax.run_directory import VOCABULARY
from electra_jax.tasks.vocabulary import Vocabulary
from electra_jax.training.state import TrainState


def initialize_from(state: TrainState, source: epath.Path, vocabulary: Vocabulary) -> TrainState:
    """Return a new state with the weights that a model directory has for it, and print what was taken.

    Args:
        state: a new run's state; it keeps the weights that `source` lacks, its optimizer state and its step.
        source: the model directory.
        vocabulary: the run's vocabulary.

    Raises:
        UserError: if `source` is not a model directory, has weights of other sizes, or has another vocabulary.
    """
    model_dir.check_directory(source)
    found = model_dir.read_vocabulary(source)
    if found is not None and found.tokens != vocabulary.tokens:
        raise UserError(f"{source} was trained with another vocabulary than VOCAB_FILE: name {source / VOCABULARY}")
    start = model_dir.start_from(source, state.params, folded=not model_dir.is_variant(source, state.params))
    taken = named_shapes(state.params).keys() - set(start.fresh)
    every = [*taken, *start.fresh, *start.unused]
    for what, names in (("taken", taken), ("new, not there", start.fresh), ("left, not needed", start.unused)):
        shown = ", ".join(shortest_prefixes(names, every))
        print_on_leader(f"weights of {source}, {what}: {shown or 'nothing'}")
    print_on_leader("the optimizer and the step are new")
    return state._replace(params=start.params)


def shortest_prefixes(names: Iterable[str], every: Iterable[str]) -> list[str]:
    """Return the shortest path prefixes that cover `names` and no other path of `every`, sorted.

    A prefix may be a whole tower or a single kernel.
    """
    chosen = set(names)
    others = [f"{name}/" for name in every if name not in chosen]
    paths = set()
    for name in chosen:
        parts = name.split("/")
        prefixes = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        paths.add(next(prefix for prefix in prefixes if not any(other.startswith(f"{prefix}/") for other in others)))
    return sorted(paths)
