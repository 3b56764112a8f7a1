"""Explain Gin's errors in one sentence, with the name that may have been meant."""

import difflib
import importlib
import inspect
import pkgutil
import re
import tokenize
from collections.abc import Iterable

from gin import config as gin_internals


def explain(error: Exception, *, files: Iterable[str], names: Iterable[str]) -> str:
    """Return Gin's message as one sentence, with the nearest valid name.

    Args:
        error: what Gin raised.
        files: the existing Gin files.
        names: the names that are bound, and their modules.
    """
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno} is not Gin (a string needs quotes): {(error.text or '').strip()}"
    if isinstance(error, tokenize.TokenError):
        return f"a Gin file ends within a value ({error.args[0]}): close its brackets and quotes"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    problem = lines[0].rstrip(".")
    place = next((line for line in lines if line.startswith("In ")), "").rstrip(":")
    place = place.replace("In bindings string line 1", "in the command line's --gin bindings").replace(
        "In file", "in file"
    )
    parameter = re.search(r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'", problem)
    unknown = re.search(r"No configurable matching '([^']+)'|'(\w+)' was not provided by an import", problem)
    hint = ""
    missing = re.match(r"Unable to open file: (.*?)\. Searched", problem)
    if missing:
        problem, hint = f"no Gin file {missing[1]} in the working folder or the package", nearest(missing[1], files)
    elif parameter:
        hint = nearest(parameter[2], parameters_of(parameter[1]))
    elif unknown:
        hint = nearest(unknown[1] or unknown[2], names)
    elif absent := re.search(r"No module named '([\w.]+)\.(\w+)'", problem):
        hint = nearest(absent[2], modules_of(absent[1]))
    elif attribute := re.match(
        r"(Couldn't resolve selector [\w.]+); <module '([\w.]+)'.* has no attribute (\w+)", problem
    ):
        problem = f"{attribute[1]}: {attribute[2]} has no {attribute[3]}"
        hint = nearest(attribute[3], vars(importlib.import_module(attribute[2])))
    return f"{problem} {place}{hint}".strip()


def parameters_of(selector: str) -> Iterable[str]:
    """Return the parameters of a registered configurable that Gin can bind."""
    return inspect.signature(gin_internals._REGISTRY.get_match(selector).wrapped).parameters


def modules_of(package: str) -> list[str]:
    """Return the names of a package's modules; none if there is no such package."""
    try:
        return [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    except (ImportError, AttributeError):
        return []


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a suggestion to end a sentence with; "" if no valid name is near."""
    matches = difflib.get_close_matches(name, sorted(set(valid)), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]}?" if matches else ""
