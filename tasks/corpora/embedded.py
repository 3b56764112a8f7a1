"""Read the embedded corpus: the prose of the docstrings of the Python packages installed in this environment.

Sources are parsed, never imported. A unit is a package (a top-level name in site-packages, or "stdlib"). A document is
a docstring; its key is "<package>/<module.path>:<qualname>", followed by "#2" for the second docstring of a name.
"""

import collections
import concurrent.futures
import hashlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from electra_jax.tasks.corpora import docstring_files
from electra_jax.tasks.corpora.corpus import Corpus, Document, fingerprint_of

# Raise this when the same sources would yield other text, so that caches of the old text are not reused.
EXTRACTOR_VERSION = 1

STANDARD_LIBRARY = "stdlib"
_OUR_OWN = ("electra_jax", "__editable__")
# Copies of other packages would repeat the text of those packages.
_SKIPPED_FOLDERS = frozenset(
    ("_vendor", "_vendored", "vendored", "externals", "site-packages", "dist-packages", "__pycache__")
)
_FEWEST_CHARACTERS = 80
# A process takes a tenth of a second to start and a second to read this much.
_SOURCE_BYTES_A_PROCESS = 4 << 20
# Measured on 200 MB of sources.
_PROSE_SHARE = 0.08

# (module, qualified name, the paragraphs of its prose: lists of sentences)
Docstring = tuple[str, str, list[list[str]]]


def package_of(key: str) -> str:
    """Return the package of a document of the embedded corpus, such as "numpy" or "stdlib"."""
    return key.split("/", 1)[0]


def module_of(key: str) -> str:
    """Return the dotted module of a document of the embedded corpus, such as "numpy.linalg"."""
    return key.split("/", 1)[1].split(":", 1)[0]


def installed_packages() -> dict[str, pathlib.Path]:
    """Return every installed package with Python sources, by name: a folder or a single .py file."""
    packages = {STANDARD_LIBRARY: pathlib.Path(sysconfig.get_path("stdlib"))}
    for folder in _package_folders():
        for path in sorted(folder.iterdir()):
            name = path.stem if path.suffix == ".py" else path.name
            is_module = path.suffix == ".py" and path.is_file()
            if name.isidentifier() and not name.startswith(_OUR_OWN) and (is_module or path.is_dir()):
                packages.setdefault(name, path)
    return {name: path for name, path in packages.items() if next(_source_files(path), None)}


def _package_folders() -> list[pathlib.Path]:
    """Return the folders of installed packages: this environment's own, then others that it can import from."""
    own = [sysconfig.get_path(scheme) for scheme in ("purelib", "platlib")]
    seen = [path for path in sys.path if pathlib.Path(path).name in ("site-packages", "dist-packages")]
    return [folder for folder in map(pathlib.Path, dict.fromkeys([*own, *seen])) if folder.is_dir()]


def package_versions(names: list[str]) -> dict[str, str]:
    """Return the versions of packages, which determine the text of the corpus together with EXTRACTOR_VERSION."""
    distributions = importlib.metadata.packages_distributions()
    versions = {STANDARD_LIBRARY: platform.python_version()}
    for name in names:
        if name != STANDARD_LIBRARY:
            owners = sorted(set(distributions.get(name, [])))
            versions[name] = ",".join(f"{owner}=={importlib.metadata.version(owner)}" for owner in owners)
    return versions


def extract(packages: dict[str, pathlib.Path]) -> Iterator[tuple[str, list[Document]]]:
    """Yield the documents of each package in turn, by file name and then by place in the file; a line is a sentence.

    A paragraph is left out if at least half of its sentences (ignoring case, digits and punctuation) occurred before,
    in this package or an earlier one. A document of under 80 characters is left out too.
    """
    seen: set[bytes] = set()
    chunks = ((package, files) for package, path in packages.items() for files in _chunks(package, path))
    for package, results in itertools.groupby(_results_in_order(chunks), key=lambda result: result[0]):
        prose = [docstring for _, docstrings in results for docstring in docstrings]
        yield package, list(_deduplicated(_keyed(package, prose), seen))


class EmbeddedCorpus(Corpus):
    """Read the docstrings of the installed packages, extracted package by package on demand.

    Extraction takes half a minute on two cores. The extracted text stays in the object, compressed, and is pickled with
    it, so that worker processes need not extract it again.
    """

    def __init__(self) -> None:
        """List the packages; nothing is read yet."""
        self._packages = installed_packages()
        super().__init__(name="embedded", units=list(self._packages))
        self._extracted: dict[str, bytes] = {}
        self._extraction = self._extract()

    def __getstate__(self) -> dict[str, Any]:
        """Extract whatever is missing: paragraphs are deduplicated over all packages, in one process."""
        collections.deque(self._extraction, maxlen=0)
        return {**self.__dict__, "_extraction": iter(())}

    @property
    def size_bytes(self) -> int:
        """Return an estimate: the size of the sources times the typical share of prose."""
        files = (file for path in self._packages.values() for file in _source_files(path))
        return int(_PROSE_SHARE * sum(file.stat().st_size for file in files))

    def fingerprint(self) -> str:
        """Return a hash of the names and versions of the packages and of the extractor's version."""
        return fingerprint_of("embedded", EXTRACTOR_VERSION, package_versions(self.units))

    def documents(self, unit: str) -> Iterator[Document]:
        """Yield the documents of a package."""
        while unit not in self._extracted:
            next(self._extraction)
        for key, text in json.loads(zlib.decompress(self._extracted[unit])):
            yield Document(key, text)

    def _extract(self) -> Iterator[None]:
        for package, documents in extract(self._packages):
            content = json.dumps([(document.key, document.text) for document in documents])
            self._extracted[package] = zlib.compress(content.encode())
            yield


def _chunks(package: str, path: pathlib.Path) -> Iterator[list[tuple[str, str]]]:
    """Yield (file, module) of every source file, in chunks for one process each."""
    chunk: list[tuple[str, str]] = []
    size = 0
    for file in _source_files(path):
        chunk.append((str(file), _module_name(package, path, file)))
        size += file.stat().st_size
        if size > _SOURCE_BYTES_A_PROCESS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _results_in_order(
    chunks: Iterator[tuple[str, list[tuple[str, str]]]],
) -> Iterator[tuple[str, list[Docstring]]]:
    """Yield (package, docstrings) of every chunk; only a few are read ahead, so that stopping early costs little."""
    processes = os.cpu_count() or 1
    pool = concurrent.futures.ThreadPoolExecutor(processes)
    try:
        running: collections.deque[tuple[str, concurrent.futures.Future[list[Docstring]]]] = collections.deque()
        for package, files in chunks:
            running.append((package, pool.submit(_prose_of_files, files)))
            if len(running) > 2 * processes:
                package, future = running.popleft()
                yield package, future.result()
        for package, future in running:
            yield package, future.result()
    finally:
        # Not awaited, because a generator that is stopped early may be collected in one of the pool's own threads.
        pool.shutdown(wait=False, cancel_futures=True)


def _prose_of_files(files: list[tuple[str, str]]) -> list[Docstring]:
    # `multiprocessing` would fork this process's threads or run its main module again.
    answer = subprocess.run(
        [sys.executable, "-m", docstring_files.__name__],
        input=json.dumps(files),
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1"},
        encoding="utf-8",
        check=True,
    )
    return json.loads(answer.stdout)


def _keyed(package: str, prose: list[Docstring]) -> Iterator[tuple[str, list[list[str]]]]:
    times: collections.Counter[str] = collections.Counter()
    for module, qualname, paragraphs in prose:
        key = f"{package}/{module}:{qualname}"
        times[key] += 1
        yield f"{key}#{times[key]}" if times[key] > 1 else key, paragraphs


def _deduplicated(docstrings: Iterable[tuple[str, list[list[str]]]], seen: set[bytes]) -> Iterator[Document]:
    for key, paragraphs in docstrings:
        kept: list[str] = []
        for sentences in paragraphs:
            marks = [_mark(sentence) for sentence in sentences]
            if 2 * sum(mark in seen for mark in marks) < len(marks):
                kept += sentences
            seen.update(marks)
        text = "\n".join(kept)
        if len(text) >= _FEWEST_CHARACTERS:
            yield Document(key, text)


def _mark(sentence: str) -> bytes:
    letters = re.sub(r"[\W\d_]+", "", sentence.lower())
    return hashlib.blake2b(letters.encode(), digest_size=8).digest()


def _source_files(path: pathlib.Path) -> Iterator[pathlib.Path]:
    if path.is_file():
        yield path
        return
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(set(folders) - _SKIPPED_FOLDERS)
        for file in sorted(files):
            if file.endswith((".py", ".pyi")):
                yield pathlib.Path(folder, file)


def _module_name(package: str, path: pathlib.Path, file: pathlib.Path) -> str:
    if path.is_file():
        return package
    parts = list(file.relative_to(path).with_suffix("").parts)
    if package != STANDARD_LIBRARY:
        parts.insert(0, package)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
