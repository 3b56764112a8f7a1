"""Check the config.gin of a model directory before Gin parses it: a directory is data, and must not run code."""

import tokenize
from collections.abc import Collection
from typing import NamedTuple

from gin import config_parser

from electra_jax.config.recorded import RecordedFile
from electra_jax.errors import UserError

# The modules that a recorded configuration may import, and the dataclasses in each that it may bind and refer to. Those
# of `electra predict`, `evaluate`, `compare`, `sweep` and `serve` are not recorded for a model, and name output paths.
CLASSES = {
    "electra_jax.config.comparison": (),
    "electra_jax.config.corpora": ("CorpusConfig",),
    "electra_jax.config.data": (),
    "electra_jax.config.finetuning": ("FinetuningRun", "HeadOptions"),
    "electra_jax.config.prediction": (),
    "electra_jax.config.pretraining": ("CacheConfig", "CacheRun", "CorpusConfig", "PretrainingRun", "VocabularyRun"),
    "electra_jax.config.serving": (),
    "electra_jax.config.sweeping": (),
    "electra_jax.model.encoder": ("EncoderConfig",),
    "electra_jax.pretraining.correction": ("CorrectedDetection",),
    "electra_jax.pretraining.electric": ("Electric", "TwoTowerDetection"),
    "electra_jax.pretraining.language_model": ("LanguageModel",),
    "electra_jax.pretraining.masked_lm": ("AllTokensMlm", "MaskedLanguageModel", "ReplaceMlm"),
    "electra_jax.pretraining.objective": ("WeightSchedule",),
    "electra_jax.pretraining.replaced_token": ("ReplacedTokenDetection", "WeightSchedule"),
    "electra_jax.tasks.options": ("TaskOptions",),
    "electra_jax.training.loop": ("LoopConfig",),
    "electra_jax.training.optimizer": ("OptimizerConfig",),
    "electra_jax.training.sharding": ("MeshConfig",),
    # Gin's own module, which it records for a macro that names another macro: nothing in it may be bound.
    "gin.config": (),
}
# The files that `electra import` includes; they are searched only in the package.
SHIPPED = ("gin/models/bert.gin", "gin/models/modern.gin", "gin/objectives/electric.gin", "gin/runs/pretrain.gin")
# Macros of `electra evaluate` and `electra predict` that say what is scored and where the results are written, and of
# `electra serve`, which say who may send requests and how large they may be.
COMMAND_LINE = (
    *("NULL_ODDS", "OUTPUT", "OUTPUT_DIR", "PREDICTIONS", "SPLIT"),
    *("HOST", "PORT", "MAX_BATCH_SIZE", "MAX_WAIT_MS", "MAX_BODY_BYTES", "MAX_INPUTS", "MAX_QUEUE"),
)
REGISTRATION = "__gin__.dynamic_registration"


class Macro(NamedTuple):
    """Stand for a use of a macro."""

    name: str


class Names(config_parser.ParserDelegate):
    """Collect the references that Gin's parser finds anywhere in a value; nothing is looked up."""

    def __init__(self) -> None:
        """Start without references."""
        self.references: list[str] = []

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> str:
        """Record a reference."""
        self.references.append(scoped_configurable_name.rpartition("/")[2])
        return f"@{scoped_configurable_name}"

    def macro(self, macro_name: str) -> Macro:
        """Return a placeholder."""
        return Macro(macro_name)


def checked(text: str, file: RecordedFile, *, also: Collection[str]) -> str:
    """Return the text for Gin to parse, in which only dataclasses of this package are imported, bound or named.

    Imports of the user's modules are blanked if they are not needed or are in `also`.

    Args:
        text: the contents of the file, read once.
        file: the file that the text comes from.
        also: modules that the user's Gin files import.

    Raises:
        UserError: if the text has an import, include, binding or reference of another kind, or is not Gin.
    """
    lines = text.split("\n")
    for first, last in _statements(text, file, also=also, blanks=True):
        lines[first - 1 : last] = [""] * (last - first + 1)
    text = "\n".join(lines)
    # Check again, so that exactly the text that is parsed has been checked.
    _statements(text, file, also=(), blanks=False)
    return text


def _statements(text: str, file: RecordedFile, *, also: Collection[str], blanks: bool) -> list[tuple[int, int]]:
    """Check every statement, and return the first and last lines of the imports to blank."""
    names, blanked = Names(), []
    imported: dict[str, config_parser.ImportStatement] = {}
    registers = False
    line = 1
    try:
        parser = config_parser.ConfigParser(text, names)
        for statement in parser:
            line = statement.location.line_num
            problem = ""
            if isinstance(statement, config_parser.ImportStatement):
                if statement.module == REGISTRATION and statement.is_from and not statement.alias:
                    registers = True
                elif statement.module in CLASSES:
                    imported[statement.bound_name()] = statement
                elif blanks and (statement.module in also or not file.needs_imports):
                    # The parser is already at the statement after this one.
                    blanked.append((line, max(line, parser.current_token.start[0] - 1)))
                else:
                    raise _foreign_import(statement, file)
            elif isinstance(statement, config_parser.IncludeStatement):
                if statement.filename not in SHIPPED:
                    problem = f"includes {statement.filename!r}, and may include shipped files alone"
            elif isinstance(statement, config_parser.BindingStatement) and not statement.arg_name:
                if statement.selector in COMMAND_LINE:
                    problem = f"sets {statement.selector}, which is for the command line"
            else:
                if not (registers and _may_be_bound(statement.selector, imported)):
                    problem = f"binds {statement.selector}, which is no dataclass of a recorded configuration"
                elif getattr(statement, "arg_name", None) == "model_dir" and statement.value != Macro("MODEL_DIR"):
                    problem = "binds model_dir to something else than %MODEL_DIR"
            for reference in names.references:
                if not (registers and _may_be_bound(reference, imported)):
                    problem = problem or f"refers to @{reference}, which is no dataclass of a recorded configuration"
            names.references.clear()
            if problem:
                raise UserError(_refusal(file, line, problem))
    except (SyntaxError, tokenize.TokenError, ValueError, RecursionError) as error:
        place = getattr(error, "lineno", None) or line
        raise UserError(_refusal(file, place, f"is not Gin ({str(error).splitlines()[0]})")) from error
    return blanked


def _may_be_bound(selector: str, imported: dict[str, config_parser.ImportStatement]) -> bool:
    """Return whether a selector names a dataclass of `CLASSES`, resolved as Gin resolves it."""
    root, _, rest = selector.partition(".")
    if root not in imported:
        return False
    statement = imported[root]
    plain = not statement.is_from and not statement.alias
    module, _, name = (selector if plain else f"{statement.module}.{rest}").rpartition(".")
    return name in CLASSES.get(module, ())


def _foreign_import(statement: config_parser.ImportStatement, file: RecordedFile) -> UserError:
    module = statement.module
    return UserError(
        _refusal(file, statement.location.line_num, f"imports {module}, which is not ours")
        + f"; if only the module is needed, as for a SeqIO task, give a Gin file of your own that imports {module}"
    )


def _refusal(file: RecordedFile, line: int, problem: str) -> str:
    return (
        f"{file.path}, line {line} {problem}: a model directory is read as data and may not run code; if you trust "
        f"it, give the file yourself, with --gin_file={file.path}"
    )
