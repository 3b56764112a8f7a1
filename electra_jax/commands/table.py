"""The commands of `electra`: their help, arguments and configuration, known before anything heavy is imported."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from electra_jax.commands.arguments import (
    EMBED_USAGE,
    PREDICT_USAGE,
    SERVE_USAGE,
    place_inspect_arguments,
    place_predict_arguments,
    place_serve_arguments,
    place_vocab_arguments,
)
from electra_jax.commands.gin_choice import (
    GinFile,
    default_first,
    given_or,
    given_or_recorded,
    recorded_after,
)
from electra_jax.errors import UserError

HELP_STYLE = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
GIN_HELP = "Any Gin value can be set: --gin.NAME=VALUE, strings in quotes, as in --gin.MODEL_DIR='\"runs/mine\"'."


class Argument(NamedTuple):
    """An argument of a command that is not a Gin binding.

    Attributes:
        name: name of a positional argument, or an option with its dashes.
        settings: keyword arguments of argparse's `add_argument`.
    """

    name: str
    settings: dict[str, Any]


class Command(NamedTuple):
    """A command, whose module in `commands` has a function `run`.

    Attributes:
        help: one line of help.
        module: name of the module. `run` takes the configuration, and the parsed arguments if there are any.
        arguments: arguments that are not Gin bindings, in order.
        usage: further lines for the command's help.
        configuration: module in `config` and name of the dataclass that Gin builds; None for a command that takes no
            Gin bindings.
        gin_files: returns the Gin files to read, given those of the command line and the bindings.
        place_arguments: returns the bindings that the arguments add, and may change the arguments.
        unneeded: required macros that the command can run without.
        reads_text: whether the command needs TensorFlow, which SeqIO loads.
        processes: what several processes do: "apart" (each runs alone), "leader" (process 0 runs, the others wait) or
            "together".
        for_task: the command to run instead on a downstream task, see `evaluates_task`.
    """

    help: str
    module: str
    arguments: tuple[Argument, ...] = ()
    usage: str = ""
    configuration: str | None = None
    gin_files: Callable[[Sequence[str], Sequence[str]], list[GinFile]] = lambda given, bindings: list(given)
    place_arguments: Callable[[argparse.Namespace, Sequence[str]], list[str]] = lambda options, bindings: []
    unneeded: tuple[str, ...] = ()
    reads_text: bool = False
    processes: str = "apart"
    for_task: "Command | None" = None

    def add_to(self, parsers: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str) -> None:
        """Add the command's parser to those of the other commands."""
        parser = parsers.add_parser(
            name,
            help=self.help,
            description=f"{self.help}\n\n{self.usage}".strip(),
            epilog=GIN_HELP if self.configuration else None,
            **HELP_STYLE,
        )
        for argument in self.arguments:
            parser.add_argument(argument.name, **argument.settings)
        if self.configuration:
            parser.add_argument(
                "--gin_file",
                action="append",
                default=[],
                metavar="PATH",
                help="a Gin file, relative to the working folder or shipped in the package; repeatable, later ones win",
            )
            parser.add_argument(
                "--gin_search_paths", default="", metavar="DIR[,DIR]", help="more folders to find Gin files in"
            )
        parser.add_argument("--verbose", action="store_true", help="show tracebacks and the libraries' own messages")


AVERAGE = Argument(
    "--average",
    {"type": int, "default": 1, "metavar": "K", "help": "take the mean of the weights of the last K checkpoints"},
)


# The options of commands that turn an encoder's hidden states into vectors.
VECTORS = (
    Argument(
        "--layer",
        {"type": int, "metavar": "N", "help": "vectors of a layer from 1, or from the last, -1; otherwise as chosen"},
    ),
    Argument(
        "--pooling", {"choices": ("mean", "cls"), "help": "vectors of all tokens, or of [CLS]; otherwise as chosen"}
    ),
)


def refuse_average(options: argparse.Namespace, bindings: Sequence[str]) -> list[str]:
    """Check that no average of a fine-tuned model is asked for, and return no bindings.

    Raises:
        UserError: if one is.
    """
    del bindings
    if options.average != 1:
        raise UserError(
            f"--average {options.average} is for a pre-training run: a fine-tuned model keeps one checkpoint alone"
        )
    return []


EVALUATE_HELP = "score a pre-training run on held-out text, a fine-tuned model on its task, or a file of predictions"

COMMANDS = {
    "pretrain": Command(
        "pre-train by replaced-token detection",
        "pretrain",
        configuration="pretraining.PretrainingRun",
        gin_files=given_or_recorded,
        reads_text=True,
        processes="together",
    ),
    "evaluate": Command(
        EVALUATE_HELP,
        "evaluate",
        (AVERAGE,),
        configuration="pretraining.PretrainingRun",
        gin_files=given_or_recorded,
        reads_text=True,
        processes="together",
        for_task=Command(
            EVALUATE_HELP,
            "evaluate_task",
            configuration="prediction.EvaluationRun",
            gin_files=recorded_after("gin/runs/evaluate.gin"),
            place_arguments=refuse_average,
            processes="leader",
        ),
    ),
    "finetune": Command(
        "train a task's head on a pre-trained encoder, and report the scores of every seed",
        "finetune",
        configuration="finetuning.FinetuningRun",
        gin_files=default_first("gin/runs/finetune.gin"),
        reads_text=True,
        processes="together",
    ),
    "sweep": Command(
        "fine-tune with several values of a few settings, and choose the best by the dev split",
        "sweep",
        configuration="sweeping.SweepRun",
        gin_files=default_first("gin/runs/sweep.gin"),
    ),
    "probe": Command(
        "score what linear maps find in the hidden states of every layer of an encoder",
        "probe",
        configuration="probing.ProbeRun",
        gin_files=default_first("gin/runs/probe.gin"),
    ),
    "trigram": Command(
        "score the prediction of masked words by a trigram model of a corpus, to compare a probe with",
        "trigram",
        configuration="probing.TrigramRun",
        gin_files=default_first("gin/runs/trigram.gin"),
        reads_text=True,
    ),
    "compare": Command(
        "pre-train variants for the same FLOPs, fine-tune each, and draw score against FLOPs",
        "compare",
        configuration="comparison.ComparisonRun",
        gin_files=default_first("gin/runs/compare.gin"),
    ),
    "predict": Command(
        "print what a model says of text or token ids, a record per input",
        "predict",
        (
            Argument("arguments", {"nargs": "*", "metavar": "[MODEL_DIR] [INPUT]", "help": "see above"}),
            Argument(
                "--output",
                {"metavar": "PATH", "help": "a .csv or .tsv, or any other file for JSON lines; it must not exist"},
            ),
            Argument("--batch_size", {"type": int, "help": "as --gin.BATCH_SIZE"}),
        ),
        usage=PREDICT_USAGE,
        configuration="prediction.PredictionRun",
        gin_files=recorded_after("gin/runs/predict.gin"),
        place_arguments=place_predict_arguments,
    ),
    "embed": Command(
        "print a vector for each text",
        "embed",
        (
            Argument("model", {"metavar": "MODEL_DIR", "help": "a model directory of any kind"}),
            Argument("input", {"nargs": "?", "metavar": "INPUT", "help": "as electra predict reads it"}),
            Argument(
                "--output",
                {
                    "metavar": "PATH",
                    "help": "a .npy for one array [N, D], a .csv or .tsv, or any other file for JSON lines",
                },
            ),
            *VECTORS,
            Argument("--text_column", {"metavar": "NAME", "help": 'of a table or of JSON objects, otherwise "text"'}),
            Argument(
                "--id_column", {"metavar": "NAME", "default": "id", "help": "whose values are repeated in the output"}
            ),
            Argument("--batch_size", {"type": int, "default": 32, "help": "rows at a time; changes only the speed"}),
        ),
        usage=EMBED_USAGE,
    ),
    "serve": Command(
        "answer texts over HTTP, with a page to try a model on",
        "serve",
        (Argument("model", {"nargs": "?", "metavar": "MODEL_DIR", "help": "a model directory"}),),
        usage=SERVE_USAGE,
        configuration="serving.ServingRun",
        gin_files=recorded_after("gin/runs/serve.gin"),
        place_arguments=place_serve_arguments,
    ),
    "inspect": Command(
        "print the model, mesh and cost of a run without running it",
        "inspect",
        (
            Argument(
                "--trial",
                {
                    "action": "store_true",
                    "help": "run a few steps, and say what fits, how long it takes and how much text",
                },
            ),
        ),
        configuration="pretraining.PretrainingRun",
        gin_files=given_or_recorded,
        place_arguments=place_inspect_arguments,
        unneeded=("MODEL_DIR", "VOCAB_FILE"),
    ),
    "vocab": Command(
        "learn a tokenizer from text",
        "vocab",
        (
            Argument(
                "--extend",
                {"metavar": "PATH", "help": "a WordPiece vocabulary to add the text's words to; the same as EXTEND"},
            ),
        ),
        configuration="pretraining.VocabularyRun",
        gin_files=given_or("gin/runs/vocab.gin"),
        place_arguments=place_vocab_arguments,
        reads_text=True,
        processes="leader",
    ),
    "cache": Command(
        "tokenise and pack a corpus once",
        "cache",
        configuration="pretraining.CacheRun",
        gin_files=given_or("gin/runs/cache.gin"),
        reads_text=True,
        processes="leader",
    ),
    "glue": Command(
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
    "import": Command(
        "make a model directory of a transformers directory or a TensorFlow 1 checkpoint",
        "import_",
        (
            Argument(
                "sources",
                {
                    "nargs": "+",
                    "metavar": "SRC",
                    "help": "a transformers directory, two of them (discriminator and generator), or a model.ckpt-*",
                },
            ),
            Argument("dest", {"metavar": "DEST", "help": "the model directory to make; it must not exist"}),
        ),
    ),
    "export": Command(
        "write a model for transformers, ONNX Runtime, the original TensorFlow code, or T5X",
        "export",
        (
            Argument("source", {"metavar": "SRC", "help": "a model directory"}),
            Argument("dest", {"metavar": "DEST", "help": "the directory to make; it must not exist"}),
            Argument(
                "--format",
                {
                    "choices": ("transformers", "sentence-transformers", "onnx", "tf1", "t5x"),
                    "required": True,
                    "help": "what to write",
                },
            ),
            AVERAGE,
            *VECTORS,
            Argument(
                "--dtype",
                {
                    "choices": ("float32", "bfloat16", "float16"),
                    "default": "float32",
                    "help": "of the weights in the files of transformers; half the size, and rounded",
                },
            ),
            Argument("--license", {"metavar": "ID", "help": "for the model card; otherwise the imported model's"}),
            Argument(
                "--language",
                {"action": "append", "metavar": "CODE", "help": "for the model card, such as de; repeatable"},
            ),
            Argument(
                "--push",
                {"metavar": "ORG/NAME", "help": "upload DEST to the hub too, as public as its owner's settings say"},
            ),
        ),
    ),
    "score": Command(
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
