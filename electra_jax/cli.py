"""`electra VERB`: parses Gin, builds what the verb needs, and calls it. The only file that parses Gin's flags.

Nothing heavy is imported before the arguments are understood, so that help and mistakes are answered at once.
"""

import argparse
import functools
import importlib
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from electra_jax.commands import task_verbs
from electra_jax.distributed import processes
from electra_jax.errors import PREEMPTED, Preempted, UserError, causes, is_full_disk
from electra_jax.files import path_of, refusal


class Argument(NamedTuple):
    """An argument beside the Gin bindings: what `add_argument` takes.

    Attributes:
        name: of a positional argument, or an option with its dashes.
        settings: the rest.
    """

    name: str
    settings: dict[str, Any]


class Verb(NamedTuple):
    """One verb.

    Attributes:
        help: one line.
        configuration: the dataclass that Gin builds for it, of `run_config` if it names no module.
        default_gin_file: read when none is given; None for the one that MODEL_DIR recorded.
        unneeded: required macros that this verb does without.
        reads_text: whether it needs TensorFlow, by way of SeqIO.
        module: below `verbs`, where it is not named as the verb; its `run` takes the configuration, and the parsed
            arguments where it has any.
        arguments: beside the bindings.
        usage: for its help, where that is more than one line.
        several: where there are several processes: "apart" (each is alone), "leader" (process 0 does it, the others
            wait) or "together".
    """

    help: str
    configuration: str
    default_gin_file: str | None
    unneeded: tuple[str, ...] = ()
    reads_text: bool = True
    module: str | None = None
    arguments: tuple[Argument, ...] = ()
    usage: str = ""
    several: str = "apart"


class PlainVerb(NamedTuple):
    """A verb without a configuration: its arguments say it all.

    Attributes:
        help: one line.
        module: below `verbs`; its `run` takes the parsed arguments.
        arguments: in order.
    """

    help: str
    module: str
    arguments: tuple[Argument, ...]


VERBS = {
    "pretrain": Verb("pre-train by replaced-token detection", "PretrainingRun", None, several="together"),
    "evaluate": Verb(
        "score a pre-training run on held-out text, a fine-tuned model on its task, or a file of predictions",
        "PretrainingRun",
        None,
        several="together",
    ),
    "finetune": Verb(
        "train a task's head on a pre-trained encoder, and report the scores of every seed",
        "finetuning.FinetuningRun",
        "gin/runs/finetune.gin",
        several="together",
    ),
    "compare": Verb(
        "pre-train variants for the same FLOPs, fine-tune each, and draw score against FLOPs",
        "comparison.ComparisonRun",
        "gin/runs/compare.gin",
        reads_text=False,
    ),
    "predict": Verb(
        "print what a model says of text or token ids, a JSON object per input",
        "prediction.PredictionRun",
        "gin/runs/predict.gin",
        reads_text=False,
        arguments=(
            Argument("arguments", {"nargs": "*", "metavar": "[MODEL_DIR] [INPUT]", "help": "see above"}),
            Argument("--output", {"metavar": "PATH", "help": "a file instead of standard output; it must not exist"}),
            Argument("--batch_size", {"type": int, "help": "as --gin.BATCH_SIZE"}),
        ),
        usage=task_verbs.PREDICT_HELP,
    ),
    "inspect": Verb(
        "print the model, mesh and cost of a run without running it",
        "PretrainingRun",
        None,
        ("MODEL_DIR", "VOCAB_FILE"),
        reads_text=False,
    ),
    "vocab": Verb("learn a WordPiece vocabulary from text", "VocabularyRun", "gin/runs/vocab.gin", several="leader"),
    "cache": Verb("tokenise and pack a corpus once", "CacheConfig", "gin/runs/cache.gin", several="leader"),
}

# What `electra evaluate` is for a fine-tuned model, and for a file of predictions.
EVALUATE_TASK = Verb(
    VERBS["evaluate"].help,
    "prediction.EvaluationRun",
    "gin/runs/evaluate.gin",
    reads_text=False,
    module="evaluate_task",
    several="leader",
)

PLAIN_VERBS = {
    "glue": PlainVerb(
        "average the scores of fine-tuned models as the ELECTRA paper does",
        "glue",
        (
            Argument(
                "runs",
                {
                    "nargs": "+",
                    "metavar": "RUN",
                    "help": "run directories of electra finetune: cola, sst2, mrpc, stsb, qqp, mnli, qnli and rte",
                },
            ),
        ),
    ),
    "import": PlainVerb(
        "make a model directory of a transformers directory, a TensorFlow 1 checkpoint or a bare machine's run",
        "import_",
        (
            Argument(
                "sources",
                {
                    "nargs": "+",
                    "metavar": "SRC",
                    "help": "a transformers directory, two of them (discriminator and generator), a model.ckpt-*, "
                    "or what bench.pretrain_small wrote (its directory, or an .npz of it)",
                },
            ),
            Argument("dest", {"metavar": "DEST", "help": "the model directory to make; it must not exist"}),
        ),
    ),
    "export": PlainVerb(
        "write a model for transformers, for the original TensorFlow code, or for T5X",
        "export",
        (
            Argument("source", {"metavar": "SRC", "help": "a model directory"}),
            Argument("dest", {"metavar": "DEST", "help": "the directory to make; it must not exist"}),
            Argument(
                "--format", {"choices": ("transformers", "tf1", "t5x"), "required": True, "help": "what to write"}
            ),
        ),
    ),
    "score": PlainVerb(
        "print how likely an Electric model takes sentences to be, a JSON object per sentence",
        "score",
        (
            Argument("model", {"metavar": "MODEL_DIR", "help": "a model directory that Electric trained"}),
            Argument(
                "input",
                {"metavar": "INPUT", "help": "a file of sentences, one a line; - for standard input; or a sentence"},
            ),
            Argument(
                "--batch_size", {"type": int, "default": 32, "help": "sentences at a time; changes only the speed"}
            ),
        ),
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb.

    Args:
        arguments: of the command line; None for this process's.

    Returns:
        0; 2 after a mistake of the user's, which is one sentence on standard error; 75 where it was pre-empted and is
        to be run again.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options, bindings = parse_arguments(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if not options.verbose:
        quieten_libraries()
    return exit_code(functools.partial(run_verb, options, bindings), verbose=options.verbose)


def exit_code(action: Callable[[], None], *, verbose: bool) -> int:
    """Runs an action, and says what went wrong; of several processes, the others are told too.

    Returns:
        What `main` returns.
    """
    try:
        action()
    except Preempted:
        return PREEMPTED
    except UserError as error:
        return fail(str(error), verbose)
    except KeyboardInterrupt:
        return fail("interrupted", verbose)
    except Exception as error:
        sentence = disk_sentence(error) or path_sentence(error) or refusal(error)
        if sentence is not None:
            return fail(sentence, verbose)
        if processes.group() is not None:
            traceback.print_exc()
            processes.leave(1, f"it failed ({type(error).__name__}: see its log)")
        raise
    return 0


def parse_arguments(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Splits a command line into argparse's part and the `--gin.NAME=VALUE` bindings, as T5X does."""
    parser = argparse.ArgumentParser(
        prog="electra",
        description="Pre-train text encoders by replaced-token detection.",
        epilog="Any Gin value can be set: --gin.NAME=VALUE, strings in quotes, as in --gin.MODEL_DIR='\"runs/mine\"'.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        sub = verbs.add_parser(
            name,
            help=verb.help,
            description=f"{verb.help}\n\n{verb.usage}".strip(),
            epilog=parser.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        for argument in verb.arguments:
            sub.add_argument(argument.name, **argument.settings)
        sub.add_argument(
            "--gin_file",
            action="append",
            default=[],
            metavar="PATH",
            help="a Gin file, relative to the working folder or shipped in the package; repeatable, later ones win",
        )
        sub.add_argument(
            "--gin_search_paths", default="", metavar="DIR[,DIR]", help="more folders to find Gin files in"
        )
        add_verbose(sub)
    for name, plain in PLAIN_VERBS.items():
        sub = verbs.add_parser(name, help=plain.help, description=plain.help, allow_abbrev=False)
        for argument in plain.arguments:
            sub.add_argument(argument.name, **argument.settings)
        add_verbose(sub)
    bindings = [argument.removeprefix("--gin.") for argument in arguments if argument.startswith("--gin.")]
    rest = [argument for argument in arguments if not argument.startswith("--gin.")]
    options, left = parser.parse_known_args(rest)
    # argparse takes an open number of arguments from one place, and options may stand between them.
    if left and (not hasattr(options, "arguments") or any(one.startswith("-") and one != "-" for one in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        options.arguments += left
    return options, bindings


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """The option that every verb has."""
    parser.add_argument("--verbose", action="store_true", help="show tracebacks and the libraries' own messages")


def run_verb(options: argparse.Namespace, bindings: list[str]) -> None:
    """Parses Gin and calls the verb with what Gin built, or with its arguments where it has no configuration.

    Raises:
        UserError: Gin bindings for a verb that takes none.
    """
    if options.verb in PLAIN_VERBS:
        if bindings:
            raise UserError(f"electra {options.verb} takes no Gin bindings (--gin.{bindings[0]})")
        importlib.import_module(f"electra_jax.commands.{PLAIN_VERBS[options.verb].module}").run(options)
        return
    from electra_jax.config import gin_files as gin_config

    if any("gs://" in binding for binding in bindings) and not options.verbose:
        from electra_jax.runtime import load_tensorflow_quietly

        load_tensorflow_quietly()
    verb, files = VERBS[options.verb], options.gin_file
    if options.verb == "predict":
        bindings, options.input = task_verbs.place_predict_arguments(options.arguments, bindings)
        if options.batch_size is not None:
            bindings.append(f"BATCH_SIZE={options.batch_size}")
    if options.verb == "evaluate" and task_verbs.evaluates_task(bindings):
        verb = EVALUATE_TASK
    if verb.default_gin_file is not None and not verb.reads_text:
        files = task_verbs.gin_files(verb.default_gin_file, files, bindings)
    elif options.verb == "finetune":
        # What is given besides is a model's sizes, or a module that registers a task.
        files = [verb.default_gin_file, *(file for file in files if file != verb.default_gin_file)]
    elif not files:
        files = [verb.default_gin_file or recorded_config(options.verb, bindings)]
    configuration = gin_config.build(
        verb.configuration,
        files,
        [*(f"{macro} = ''" for macro in verb.unneeded), *bindings],
        search_paths=[path for path in options.gin_search_paths.split(",") if path],
    )
    if verb.reads_text and not options.verbose:
        from electra_jax.runtime import load_tensorflow_quietly

        load_tensorflow_quietly()
    module = importlib.import_module(f"electra_jax.commands.{verb.module or options.verb}")
    if verb.several == "apart":
        module.run(*([configuration, options] if verb.arguments else [configuration]))
        return
    with processes.joined(gin_config.resolved()):
        if verb.several != "leader" or processes.leader():
            module.run(configuration)


def recorded_config(verb: str, bindings: list[str]) -> str:
    """The configuration that a run directory recorded, for a verb that was given no Gin file.

    Raises:
        UserError: there is none.
    """
    directory = task_verbs.bound(bindings, "MODEL_DIR")
    if directory is None:
        raise UserError(f"electra {verb} needs --gin_file=PATH, or --gin.MODEL_DIR of a run that exists")
    path = path_of(directory) / "config.gin"
    if not path.exists():
        raise UserError(f"no --gin_file was given and {path} does not exist: MODEL_DIR must be a run's directory")
    return str(path)


def disk_sentence(error: BaseException) -> str | None:
    """What to say of an error that a full disk is behind, None for any other.

    A full disk is met again while the files are closed: the sentence of the first to meet it is the one that helps.
    """
    if not is_full_disk(error):
        return None
    chain = list(causes(error))
    places = (f" of {link.filename}" for link in chain if getattr(link, "filename", None))
    known = (str(link) for link in chain if isinstance(link, UserError))
    return next(known, f"the disk{next(places, '')} is full: free some space and run the same command again")


def path_sentence(error: BaseException) -> str | None:
    """What to say of a path that the system refuses, such as a folder that is to be made and is a file; else None."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    return f"{error.filename} cannot be used ({error.strerror}): name another path, or put this one right"


def fail(sentence: str, verbose: bool) -> int:
    """Says what is wrong on standard error; the traceback only when asked for."""
    if verbose:
        traceback.print_exc()
    print(f"electra: {sentence}", file=sys.stderr)
    processes.leave(2, sentence)
    return 2


def quieten_libraries() -> None:
    """Keeps what libraries say and no user can act on out of the terminal."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in ("asyncio", "jax", "orbax", "tensorflow"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Orbax's threads print what they raise, and it is raised again where the checkpoint is awaited.
    threading.excepthook = lambda _: None
    sys.unraisablehook = lambda _: None
