"""Read Gin files: find them, check every name and type, and build one configuration object."""

import contextlib
import dataclasses
import io
import itertools
import os
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gin
from etils import epath
from gin import config as gin_internals

from electra_jax import ranges
from electra_jax.config.gin_errors import explain, nearest
from electra_jax.config.own_paths import tokenizer_bindings
from electra_jax.config.recorded import RecordedFile, with_current_fields, with_current_imports, with_current_switches
from electra_jax.config.recorded_check import checked
from electra_jax.errors import UserError
from electra_jax.files import regular

T = TypeVar("T")
PACKAGE = Path(__file__).parent.parent


def build(kind: type[T], files: Sequence[str | RecordedFile], bindings: list[str], *, search_paths: list[str]) -> T:
    """Parse files, then bindings, and return the dataclass `kind` built from them.

    Args:
        kind: the dataclass to build.
        files: Gin files in order; a later binding replaces an earlier one. The user's files run as code; recorded ones
            are checked first, and do not.
        bindings: NAME=VALUE as on the command line.
        search_paths: folders to search after the working folder and before the package.

    Raises:
        UserError: if a file, name or macro does not exist, or a value is missing or of the wrong type.
    """
    parsed = parse(files, bindings, search_paths)
    check_macros(parsed, bindings)
    return built(kind, ", ".join(map(str, files)))


def built(kind: type[T], place: str) -> T:
    """Return the dataclass `kind` built from the configuration in force.

    Args:
        kind: the dataclass to build.
        place: where the configuration comes from, for messages.

    Raises:
        UserError: if a value is missing or of the wrong type.
    """
    check_types()
    try:
        return gin.get_configurable(kind)()
    except (UserError, ValueError) as error:
        # Gin appends the place of the call; the message itself is the first line.
        raise UserError(str(error).splitlines()[0]) from error
    except TypeError as error:
        missing = re.search(r"(\w+)\.__init__\(\) missing \d+ required positional arguments?: ([^\n]*)", str(error))
        if missing is None:
            raise
        raise UserError(
            f"{missing[1]} has no binding for {missing[2]} in {place}: give the file that binds "
            "them too (a model: --gin_file=gin/models/small.gin) or bind them with --gin.NAME=VALUE"
        ) from error


@contextlib.contextmanager
def varied(bindings: Sequence[str], *, without: type | None = None) -> Iterator[None]:
    """Bind other values in the configuration in force during the body, and restore it afterwards.

    Args:
        bindings: NAME=VALUE as on the command line.
        without: a dataclass whose own bindings are left out, together with the macros that it alone uses.

    Raises:
        UserError: if Gin refuses a binding.
    """
    held = gin_internals._CONFIG
    gin_internals._CONFIG = {
        place: dict(values)
        for place, values in held.items()
        if without is None or gin_internals._REGISTRY.get_match(place[1]).wrapped is not without
    }
    try:
        with _explained():
            for binding in bindings:
                parse_binding(binding)
        yield
    finally:
        gin_internals._CONFIG = held


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn Gin's errors in the body into one sentence.

    Raises:
        UserError: if Gin raises an error.
    """
    try:
        yield
    except (ValueError, NameError, SyntaxError, ImportError, AttributeError, OSError, tokenize.TokenError) as error:
        raise UserError(explain(error, files=shipped(), names=bound_names())) from error
    except RecursionError as error:
        raise UserError(
            "a value in the Gin files or bindings nests too deeply to be read: use fewer brackets"
        ) from error


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Restore the caller's Gin configuration after the body: a library must not clear its user's."""
    names = ("_CONFIG", "_SINGLETONS", "_CONSTANTS", "_IMPORTS", "_OPERATIVE_CONFIG")
    kept = {name: getattr(gin_internals, name) for name in names}
    lists = [(place, list(place)) for place in (gin_internals._LOCATION_PREFIXES, gin_internals._FILE_READERS)]
    locked = gin.config_is_locked()
    for name, container in kept.items():
        setattr(gin_internals, name, type(container)())
    try:
        yield
    finally:
        for name, container in kept.items():
            setattr(gin_internals, name, container)
        for place, held in lists:
            place[:] = held
        gin_internals._set_config_is_locked(locked)


def parse(files: Sequence[str | RecordedFile], bindings: list[str], search_paths: list[str]) -> list[epath.Path]:
    """Parse everything into Gin's registry and return the files that were read, with their includes.

    Raises:
        UserError: if a file is not found or Gin refuses something.
    """
    gin.clear_config(clear_constants=True)
    # gin/ is inside an installed package but next to it in a checkout: "gin/runs/x.gin" is found in both.
    folders = ["", *search_paths, str(PACKAGE), str(PACKAGE.parent)]
    gin_internals._LOCATION_PREFIXES[:] = folders
    # These replace Gin's own readers: a run's recorded configuration may be in an object store, and Gin's second reader
    # looks inside Python packages and logs an error for every folder that has no such file.
    gin_internals._FILE_READERS[:] = [(_open_with_moved_imports, lambda path: epath.Path(path).is_file())]
    given = [file for file in files if not isinstance(file, RecordedFile)]
    for file in given:
        if locate(file, folders) is None:
            raise UserError(f"no Gin file {file} in the working folder or the package{nearest(file, shipped())}")
    with _explained():
        modules = imported_by(given) if len(given) < len(files) else set()
        read = [
            _parse_recorded(file, modules)
            if isinstance(file, RecordedFile)
            else _located(gin.parse_config_file(file), folders)
            for file in files
        ]
        own = [binding for file in files for binding in tokenizer_bindings(str(file), macros())]
        for binding in [*own, *bindings]:
            parse_binding(binding)
    return list(itertools.chain.from_iterable(read))


def imported_by(files: Sequence[str]) -> set[str]:
    """Return the modules that Gin files and their includes import; finding them imports them."""
    with isolated():
        for file in files:
            gin.parse_config_file(file)
        return {statement.module for statement in gin_internals._IMPORTS}


def _parse_recorded(file: RecordedFile, modules: set[str]) -> list[epath.Path]:
    """Parse the configuration that a model directory recorded, and return the files that were read.

    Args:
        file: the file.
        modules: the modules that the user's files import.
    """
    stream = _open_with_moved_imports(file.path)
    stream = _named(checked(stream.getvalue(), file, also=modules), file.path)
    folders = list(gin_internals._LOCATION_PREFIXES)
    # The working folder may be the model directory itself.
    gin_internals._LOCATION_PREFIXES[:] = package = [str(PACKAGE), str(PACKAGE.parent)]
    try:
        includes, _ = gin.parse_config(stream)
    finally:
        gin_internals._LOCATION_PREFIXES[:] = folders
    return [epath.Path(file.path), *(path for record in includes for path in _located(record, package))]


def _located(record: Any, folders: list[str]) -> list[epath.Path]:
    """Return the paths of a parsed file and its includes."""
    return [found for file in flatten([record]) if (found := locate(file, folders))]


def _named(text: str, path: str) -> io.StringIO:
    """Return a text as an open file with a name, for Gin's messages."""
    stream = io.StringIO(text)
    stream.name = path
    return stream


def _open_with_moved_imports(path: str) -> io.StringIO:
    """Open a Gin file, with the imports, switches and fields of earlier versions rewritten to current ones."""
    text = with_current_imports(
        with_current_fields(with_current_switches(regular(epath.Path(path)).read_text(encoding="utf-8")))
    )
    return _named(text, path)


def search_paths() -> list[str]:
    """Return the folders in which the last configuration was searched, besides the working folder and the package."""
    return gin_internals._LOCATION_PREFIXES[1:-2]


def shipped() -> list[str]:
    """Return the names of the package's Gin files, as they are given on the command line."""
    return [str(path.relative_to(root)) for root in (PACKAGE, PACKAGE.parent) for path in root.glob("gin/**/*.gin")]


def parse_binding(binding: str) -> None:
    """Parse one NAME=VALUE of the command line.

    Raises:
        UserError: if the value is not a Gin literal.
    """
    try:
        gin.parse_config(binding)
    except (SyntaxError, tokenize.TokenError) as error:
        name, _, value = binding.partition("=")
        if not value:
            raise UserError(f"--gin.{binding} has no value: write --gin.{name}=VALUE") from error
        raise UserError(
            f"--gin.{binding}: {value} is not a Gin value; a string needs its own quotes: --gin.{name}='\"{value}\"'"
        ) from error


def bound_names() -> list[str]:
    """Return the names that the files bind, and their modules."""
    names = [selector for _, selector in gin_internals._CONFIG]
    return [*macros(), *(part for name in names for part in (name.split(".")[-2], name.split(".")[-1]))]


def macros() -> dict[str, Any]:
    """Return every macro that has a value, with that value."""
    return {
        scope: values["value"] for (scope, selector), values in gin_internals._CONFIG.items() if selector == "gin.macro"
    }


def check_macros(files: list[epath.Path], bindings: list[str]) -> None:
    """Check that every macro that is used has a value, and that every macro that is set is used.

    Raises:
        UserError: if one has no value or is not used.
    """
    values, uses, defined = macros(), references(files), definitions(files)
    # A later binding may have replaced the value in which a file used a macro.
    for name in sorted(macros_in(list(gin_internals._CONFIG.values()))):
        # Gin holds `X = %gin.REQUIRED` as a reference that fails only when it is evaluated.
        if str(values.get(name, "%gin.REQUIRED")) == "%gin.REQUIRED":
            hint = "" if name in values else nearest(name, values)
            place = defined.get(name) or uses.get(name) or "the command line's --gin bindings"
            raise UserError(f"the macro {name} has no value ({place}): set it with --gin.{name}=VALUE{hint}")
    for binding in bindings:
        name = binding.partition("=")[0].strip()
        if "." not in name and name not in uses:
            raise UserError(f"--gin.{binding}: no macro {name} is used by the Gin files{nearest(name, uses)}")
    for name, place in defined.items():
        if name not in uses:
            raise UserError(f"no macro {name} is used by the Gin files ({place}){nearest(name, uses)}")


def macros_in(value: Any) -> set[str]:
    """Return the names of the macros in a value as Gin holds it, including those inside its collections."""
    if isinstance(value, Mapping):
        return macros_in([*value.keys(), *value.values()])
    if isinstance(value, list | tuple):
        return set().union(*map(macros_in, value))
    if not isinstance(value, gin_internals.ConfigurableReference):
        return set()
    found = re.fullmatch(r"%(\w+)", str(value))
    return set() if found is None else {found[1]}


def check_types() -> None:
    """Check that every number, string or bool field of a dataclass is bound to a value of its type and in its range.

    Raises:
        UserError: if a value is of another type, or out of range.
    """
    values = macros()
    for (_, selector), fields in gin_internals._CONFIG.items():
        wrapped = gin_internals._REGISTRY.get_match(selector).wrapped
        if not dataclasses.is_dataclass(wrapped):
            continue
        declared = ranges.declared(wrapped)
        for field, value in fields.items():
            # The name as a user binds it: the module's last part and the class.
            place = ".".join([*selector.split(".")[-2:], field])
            macro, held = behind_macros(value, values)
            if macro is None and str(held) == "%gin.REQUIRED":
                raise UserError(f"{place} has no value: set it with --gin.{place}=VALUE")
            if not isinstance(held, gin_internals.ConfigurableReference):
                name = place if macro is None else f"{macro} ({place})"
                declared[field].check(name, held)


def behind_macros(value: object, values: Mapping[str, Any]) -> tuple[str | None, Any]:
    """Follow a value through macros that refer to other macros; return the last macro and the value bound to it.

    Args:
        value: what a field is bound to.
        values: the value of each macro.

    Raises:
        UserError: if macros refer to each other in a circle.
    """
    names: list[str] = []
    while macro := re.fullmatch(r"%(\w+)", str(value)):
        if macro[1] in names:
            raise UserError(f"the macros {' and '.join(names)} refer to each other: bind one of them to a value")
        names.append(macro[1])
        value = values.get(macro[1])
    return names[-1] if names else None, value


def definitions(files: list[epath.Path]) -> dict[str, str]:
    """Return the macros that the files set, each with its first file and line."""
    found: dict[str, str] = {}
    for path in files:
        for number, line in enumerate(regular(path).read_text(encoding="utf-8").splitlines(), start=1):
            if defined := re.match(r"(\w+)\s*=", line):
                found.setdefault(defined[1], f"{path}, line {number}")
    return found


def references(files: list[epath.Path]) -> dict[str, str]:
    """Return the macros that the files use, each with its first file and line."""
    found: dict[str, str] = {}
    for path in files:
        for number, line in enumerate(regular(path).read_text(encoding="utf-8").splitlines(), start=1):
            for name in macros_written_in(line.partition("#")[0]):
                found.setdefault(name, f"{path}, line {number}")
    return found


def flatten(parsed: Iterable[Any]) -> list[str]:
    """Return the file names in Gin's nested include records, depth first."""
    return [name for record in parsed for name in (record.filename, *flatten(record.includes))]


def locate(file: str, folders: list[str]) -> epath.Path | None:
    """Return the path of a file in the first folder that has it; None if none has."""
    places = (epath.Path(os.path.join(folder, file)) for folder in folders)
    return next((place for place in places if place.is_file()), None)


def resolved() -> str:
    """Return the configuration in force as the text of one file that builds the same object again."""
    text = gin.config_str(max_line_length=110)
    # A macro is no longer used if the command line binds its field directly, or its only user was a later macro.
    for name in reversed(macros()):
        if not re.search(rf"%{name}\b", text):
            text = re.sub(rf"^{name} =.*\n(?:[ \t]+\S.*\n)*", "", text, flags=re.MULTILINE)
    return text


def macros_written_in(text: str) -> list[str]:
    """Return the macros that the text of a Gin file uses, in order."""
    return re.findall(r"%(\w+)(?![\w.])", text)


def settings() -> dict[str, str]:
    """Return every bound field, as `Class.field`, with its value as text, macros resolved."""
    return {field: repr(value) for field, (value, _) in _bound_fields().items()}


def macro_names() -> dict[str, str]:
    """Return, by `Class.field`, the macro from which each field with one takes its value."""
    return {field: macro for field, (_, macro) in _bound_fields().items() if macro is not None}


def _bound_fields() -> dict[str, tuple[Any, str | None]]:
    """Return, by `Class.field`, the value of each bound field and the macro that holds it."""
    values, found = macros(), {}
    for (_, selector), fields in gin_internals._CONFIG.items():
        if selector == "gin.macro":
            continue
        for field, value in fields.items():
            macro, held = behind_macros(value, values)
            found[f"{selector.rpartition('.')[2]}.{field}"] = held, macro
    return found
