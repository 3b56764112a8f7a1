"""The embedded corpus: prose without code, every document labelled, nothing twice, nothing imported."""

import pathlib
import pickle
import sys

import pytest

from electra_jax.tasks.corpora import embedded
from electra_jax.tasks.corpora.docstrings import prose_paragraphs
from electra_jax.tasks.corpora.embedded import EmbeddedCorpus, module_of, package_of
from electra_jax.tasks.corpora.open import open_corpus


def prose(docstring: str) -> str:
    return "\n\n".join("\n".join(sentences) for sentences in prose_paragraphs(docstring))


def test_numpy_style() -> None:
    docstring = """
    Return the :func:`~numpy.sort`\\ ed values of an array, see [1]_ for more.

    The order of equal values is kept, e.g. the order of "a" and "b" [2]_. It takes **time**,
    as ``O(n log n)`` says.  See `the guide <https://example.org/guide>`_ for this.

    .. versionadded:: 1.4
       The parameter was not there before that version.

    .. note:: Beware

       This is a note for the reader of it.

    Parameters
    ----------
    values : array_like, shape (n, 2)
        The values that are to be sorted. They are
        not changed by it.
    axis, order : int

    Returns
    -------
    out : ndarray
        The array with the values in order.

    See Also
    --------
    argsort : The order of the values in an array.

    Examples
    --------
    As an example, we sort the values of a list::

        sort the list of the values that is given

    and print what we have of it:

    >>> sort([2, 1])
    the output of it is a list
    of the values

    ======= =====================
    name    what is in the table
    ======= =====================
    a       the first of the rows
    ======= =====================

    References
    ----------
    .. [1] The art of the sorting of an array.
    """
    assert prose(docstring) == (
        "Return the numpy.sorted values of an array, see for more.\n\n"
        'The order of equal values is kept, e.g. the order of "a" and "b".\n'
        "It takes time, as O(n log n) says.\n"
        "See the guide for this.\n\n"
        "This is a note for the reader of it.\n\n"
        "The values that are to be sorted.\n"
        "They are not changed by it.\n\n"
        "The array with the values in order.\n\n"
        "As an example, we sort the values of a list:\n\n"
        "and print what we have of it:"
    )


def test_google_style() -> None:
    docstring = """Waits for the result of a call.

    Args:
      timeout: The number of seconds that the caller waits
        for it, at the most.
      name (Optional[str]): the name of the call, for the log.
      x: int

    Returns:
      The result of the call (a `Tensor` of shape [B, L]).

    Usage of it:

    ```python
    wait for the result of the call
    ```

    * one thing to do with the result of it
    * another thing to do,
      which is longer than the first
    """
    assert prose(docstring).split("\n\n") == [
        "Waits for the result of a call.",
        "The number of seconds that the caller waits for it, at the most.",
        "the name of the call, for the log.",
        "The result of the call (a Tensor of shape [B, L]).",
        "one thing to do with the result of it",
        "another thing to do, which is longer than the first",
    ]


def test_code_and_scraps_are_no_prose() -> None:
    for scrap in ("Alias.", "x, y = f(a=1, b=2)", "import this and that of the", "a_b c_d e.f g(h) of the i_j", ""):
        assert prose_paragraphs(scrap) == []


def test_sentences() -> None:
    assert prose_paragraphs("This is Mr. Smith of the U.S. Army, i.e. a man. It is (as we say) he! So it is.") == [
        ["This is Mr. Smith of the U.S. Army, i.e. a man.", "It is (as we say) he!", "So it is."]
    ]


LONG = "is the text of a docstring that is long enough to be kept as a document of the corpus."
MODULE = f'''"""This module {LONG}"""
raise SystemExit("imported")

class Outer:
    """The class {LONG}"""

    attribute = 1
    """The attribute {LONG}"""

    def method(self):
        r"""The method {LONG} \\d"""
        def inner():
            """The inner function {LONG}"""

if True:
    def twice(): """The first of them {LONG}"""
else:
    async def twice(): """The other of them {LONG}"""

def repeated(): """This MODULE, {LONG}"""
def near():
    """The inner function {LONG}

    The class {LONG} The sentence is new in this place and nowhere else.

    A paragraph {LONG} It is kept, and it is all that is kept of it.
    """
def scrap(): """It is a scrap of text."""
add_newdoc("small.core", "made", """The text {LONG}
""")
'''


@pytest.fixture
def packages(tmp_path: pathlib.Path) -> dict[str, pathlib.Path]:
    small = tmp_path / "small"
    (small / "sub").mkdir(parents=True)
    (small / "_vendor").mkdir()
    (small / "__init__.py").write_text(MODULE)
    (small / "sub" / "leaf.py").write_text(f'def f():\n    """The leaf {LONG}"""\n')
    (small / "sub" / "broken.py").write_text('"""Not Python, though it is the text of a module."""\n{{ template }}')
    (small / "_vendor" / "copy.py").write_text(f'"""The copy {LONG}"""')
    (tmp_path / "single.py").write_text(f'"""The leaf {LONG}"""\nclass C:\n    """The single {LONG}"""')
    return {"small": small, "single": tmp_path / "single.py"}


def test_documents_of_small_packages(packages: dict[str, pathlib.Path]) -> None:
    extracted = dict(embedded.extract(packages))
    texts = {document.key: document.text for documents in extracted.values() for document in documents}
    assert {key: text.replace(LONG, "...") for key, text in texts.items()} == {
        "small/small:": "This module ...",
        "small/small:Outer": "The class ...",
        "small/small:Outer#2": "The attribute ...",
        "small/small:Outer.method": "The method ... \\d",
        "small/small:Outer.method.inner": "The inner function ...",
        "small/small:twice": "The first of them ...",
        "small/small:twice#2": "The other of them ...",
        "small/small:near": "A paragraph ...\nIt is kept, and it is all that is kept of it.",
        "small/small:small.core.made": "The text ...",
        "small/small.sub.leaf:f": "The leaf ...",
        "single/single:C": "The single ...",
    }
    assert dict(embedded.extract(packages)) == extracted


def test_labels() -> None:
    key = "scipy/scipy.linalg._basic:solve"
    assert (package_of(key), module_of(key)) == ("scipy", "scipy.linalg._basic")
    assert (package_of("stdlib/asyncio:"), module_of("stdlib/asyncio:")) == ("stdlib", "asyncio")


def test_which_packages_there_are(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An environment may see the packages of another one.
    other = tmp_path / "site-packages"
    for name in ("elsewhere", "numpy"):
        (other / name).mkdir(parents=True)
        (other / name / "__init__.py").write_text("")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/mine.py").write_text("")
    own = embedded.installed_packages()
    monkeypatch.setattr("sys.path", [*sys.path, str(other), str(tmp_path / "scripts")])
    assert embedded.installed_packages() == own | {"elsewhere": other / "elsewhere"}
    monkeypatch.undo()
    packages = embedded.installed_packages()
    assert {"stdlib", "numpy", "jax", "tensorflow", "scipy"} <= set(packages)
    assert not any(name.startswith(("electra_jax", "__editable__", "tests")) for name in packages)
    versions = embedded.package_versions(list(packages))
    assert versions["numpy"].startswith("numpy==")
    corpus = open_corpus("embedded", text_format="auto", text_field="text", skip_undecodable=False)
    assert corpus.units == list(packages)
    assert corpus.fingerprint() == EmbeddedCorpus().fingerprint()


def test_a_real_package(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = embedded.installed_packages()
    monkeypatch.setattr(embedded, "installed_packages", lambda: {name: packages[name] for name in ("optax", "flax")})
    corpus = EmbeddedCorpus()
    documents = [document for unit in corpus.units for document in corpus.documents(unit)]
    assert len(documents) > 400
    assert len({document.key for document in documents}) == len(documents)
    assert {package_of(document.key) for document in documents} == {"optax", "flax"}
    assert all(module_of(document.key).split(".")[0] == package_of(document.key) for document in documents)
    lines = [line for document in documents for line in document.text.split("\n")]
    assert not [line for line in lines if ">>>" in line or "```" in line or line != line.strip() or not line]
    size = sum(len(document.text) for document in documents)
    assert 0.3 < size / corpus.size_bytes < 3
    # Another process gets the same documents without extracting anything.
    copy = pickle.loads(pickle.dumps(corpus))
    monkeypatch.setattr(embedded, "extract", None)
    assert [document for unit in copy.units for document in copy.documents(unit)] == documents
