"""Files are read by what they hold, not by their suffix."""

import bz2
import gzip
import json
import pathlib
import pickle

import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.open import open_corpus

WIKI = '<doc id="0" title="A">\nA\n\nOne.\nTwo.\n</doc>\n<doc id="1">\nThree.\n</doc>\n'


def read(path: pathlib.Path, text_format: str = "auto", text_field: str = "text") -> tuple[list[str], dict[str, int]]:
    corpus = open_corpus(str(path), text_format=text_format, text_field=text_field, skip_undecodable=False)
    found = [document.text for unit in corpus.units for document in corpus.documents(unit)]
    return found, dict(corpus.skipped)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("wikijson_00", json.dumps({"id": "0", "text": "One."}) + "\n", ["One."]),
        ("wiki_00", WIKI, ["A\nOne.\nTwo.", "Three."]),
        ("a.csv", 'id,text\n0,"One, ""a"".\n\nTwo."\n1,Three.\n', ['One, "a".\nTwo.', "Three."]),
        ("table.txt", "id\ttext\n0\tOne.\n", ["One."]),
        ("dna.txt", "ACGT" * 50_000, ["ACGT" * 50_000]),
        ("long.csv", "id,text\n0," + "A" * 200_000, ["A" * 200_000]),
        ("old_mac.txt", "One,\rtwo\n", ["One,\rtwo"]),
        (
            "ends.txt",
            "One\fTwo\n\fThree\u0085Four\u2028\u2029Five\vSix\n\f\nSeven\n",
            ["One\nTwo\nThree\nFour\nFive\nSix", "Seven"],
        ),
        ("ends.jsonl", '{"text": "One\u2028Two\\fThree"}\n', ["One\nTwo\nThree"]),
        (
            "slashes.txt",
            "and/or he/she it/they a/b c/d e/f 1/2 3/4 5/6\n",
            ["and/or he/she it/they a/b c/d e/f 1/2 3/4 5/6"],
        ),
        ("numbered.txt", "1\tOne.\n3\tThree.\n", ["1\tOne.\n3\tThree."]),
        ("tag.txt", "<note>\nOne <b>two</b>.\n</note>\n", ["<note>\nOne <b>two</b>.\n</note>"]),
        ("seven.txt", "One.\tTwo.\n" * 7, ["One.\tTwo.\n" * 6 + "One.\tTwo."]),
        ("tabs.txt", "One.\tTwo.\n" * 8 + "Three.\n", ["One.\tTwo.\n" * 8 + "Three."]),
        ("table.md", "| One | Two |\n" * 9, ["| One | Two |\n" * 8 + "| One | Two |"]),
        ("lisp.txt", "(defun f (x) (* x 2))\n(SETQ X (F 2))", ["(defun f (x) (* x 2))\n(SETQ X (F 2))"]),
        ("code.js", "const a = [1, 2]\nfoo_bar(a_b)", ["const a = [1, 2]\nfoo_bar(a_b)"]),
        ("year.txt", "In 1999 2000 2001 were years.", ["In 1999 2000 2001 were years."]),
        ("headings.md", "One\n##Two\n##Three\n" * 9, ["One\n##Two\n##Three\n" * 8 + "One\n##Two\n##Three"]),
        ("escape.txt", r"Write \u00e4 or &#228; for it." * 9, [r"Write \u00e4 or &#228; for it." * 9]),
        ("caps.txt", "ORCHARDS AND GARDENS", ["ORCHARDS AND GARDENS"]),
        ("formats.txt", "GGUF is a format.", ["GGUF is a format."]),
        ("r.txt", "RDA is a rule of libraries.", ["RDA is a rule of libraries."]),
        ("mac.txt", "One.\rTwo.\r\rThree.\r", ["One.\nTwo.", "Three."]),
        ("mac.csv", "id,text\r0,One.\r1,Two.\r", ["One.", "Two."]),
        ("a.json", '[{"text": "One."},\n {"text": "Two."}]', ["One.", "Two."]),
        ("strings.json", json.dumps(["One.", "Twö."], ensure_ascii=False), ["One.", "Twö."]),
        ("pretty.json", json.dumps({"text": "One."}, indent=1) * 2, ["One.", "One."]),
        ("long.json", json.dumps([{"text": "ä" * 300_000}, {"text": "b"}], ensure_ascii=False), ["ä" * 300_000, "b"]),
        ("joined.csv", "id,text\n0,One.\nid,text\n0,Two.\n", ["One.", "Two."]),
        ("german.csv", "id;text\n0;One, two.\n", ["One, two."]),
        ("quoted.txt", '["Yes," he said] and left.\n', ['["Yes," he said] and left.']),
        ("set.txt", '{"a": 1} is an object.\n', ['{"a": 1} is an object.']),
        ("list.txt", "name,number\nor so\nhe,said\nthat\n", ["name,number\nor so\nhe,said\nthat"]),
        ("prose.txt", "{braces} are prose.\n\n<docile> too.\n", ["{braces} are prose.", "<docile> too."]),
    ],
)
def test_a_file_is_read_as_its_first_lines_show(
    tmp_path: pathlib.Path, name: str, content: str, expected: list[str]
) -> None:
    (tmp_path / name).write_text(content)
    assert read(tmp_path / name)[0] == expected
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    assert read(tmp_path / f"{name}.gz")[0] == expected
    (tmp_path / "no_suffix").write_bytes(gzip.compress(bz2.compress(content.encode())))
    if not name.endswith(".csv"):
        assert read(tmp_path / "no_suffix")[0] == expected


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        # A quote that is not closed is text, and so are those of a word at the beginning.
        (['1\t"One', "2\tTwo", "3\tThree"], ['"One', "Two", "Three"]),
        (['1\t"One', "2\tTwo", '3\tThree"', "4\tFour"], ['"One', "Two", 'Three"', "Four"]),
        (['1\t"One", he said', '2\t"Two"', '3\t""Three'], ['"One", he said', "Two", '""Three']),
        (['1\t"One', '2\t"Two', "3\tThree"], ['"One', '"Two', "Three"]),
        (['1\ta "b" c', "2\tTwo"], ['a "b" c', "Two"]),
        # As pandas writes quotes and line ends.
        (['1\t"One ""a""', "", 'two"', "2\tTwo"], ['One "a"\ntwo', "Two"]),
        (['1\t"One ""a"""', '2\t"Two', "lines", 'three"', "3\tFour"], ['One "a"', "Two\nlines\nthree", "Four"]),
    ],
)
def test_quotes_of_a_tab_separated_table(tmp_path: pathlib.Path, rows: list[str], texts: list[str]) -> None:
    for end in ("\n", "\r\n"):
        (tmp_path / "a.tsv").write_bytes(end.join(["id\ttext", *rows, ""]).encode())
        assert read(tmp_path / "a.tsv")[0] == texts
    (tmp_path / "a.tsv").write_text('text\nOne\n"Two\nThree\n"Four"\n"Five"" six\n')
    assert read(tmp_path / "a.tsv")[0] == ["One", '"Two', "Three", "Four", '"Five"" six']
    middle = [row.replace("\t", "\tx\t", 1) for row in rows]
    (tmp_path / "a.tsv").write_text("\n".join(["id\tkind\ttext", *middle, ""]))
    assert read(tmp_path / "a.tsv")[0] == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<mediawiki>\n<page>\n", "MediaWiki's XML.*wikiextractor"),
        ('<?xml version="1.0"?>\n<mediawiki xmlns="x">\n', "MediaWiki's XML"),
        (">sp|P0\nDFSGWDTHWVPMEERCYMIICELN\n", "FASTA"),
        ("id\tsentence\n0\tOne.\n1\tTwo.\n2\tThree.\n3\tFour.\n", "no column 'text' .columns: 'id', 'sentence'"),
        ("@read\nACGTACGTACGT\n+\n!!!!\n", "FASTQ"),
        ("<!DOCTYPE html>\n<p>One.", "HTML.*trafilatura"),
        ('<?xml version="1.0"?>\n<TEI>\n', "an XML file"),
        ("-- MySQL dump 10.1\n", "SQL dump"),
        ("1\n00:00:01,000 --> 00:00:02,000\nOne.", "subtitles"),
        (">chr1\nacgtacgtacgtnnnnacgtacgt\n", "FASTA"),
        ("# sent_id = 1\n1\tOne\tone" + "\t_" * 7 + "\n", "CoNLL-U"),
        ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("Confidence NN B-NP\nin IN B-PP\nthe DT B-NP\npound NN I-NP\n", "a CoNLL file of tagged words"),
        ("-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nwill MD B-VP O\n, , O O\nnot RB O O\n", "a CoNLL file"),
        ("##fileformat=VCFv4.2\n#CHROM\tPOS\n20\t14370\n", "a VCF file"),
        ("LOCUS       SCU49845     5028 bp    DNA\nDEFINITION  TCP1-beta gene.\n", "a GenBank file"),
        ("<s>\nThe\tDT\tthe\ndog\tNN\tdog\n</s>\n", "a vertical file of words with tags"),
        ("The/at Fulton/np-tl County/nn-tl Jury/nn-tl said/vbd ,/, an/at end/nn\n", "a text of words with their tags"),
        ("T1\tPerson 0 3\tAnn\nR1\tIn Arg1:T1 Arg2:T1\n", r"brat's annotations.*the \.txt files"),
        ("1\tOne.\n2\tTwo.\n3\tThree.\n", "a file of numbered lines.*cut -f2"),
        (
            '<DOC id="A" type="story" >\n<HEADLINE>\nOne.\n</HEADLINE>\n<TEXT>\n<P>\nTwo.\n',
            "between tags of SGML or XML",
        ),
        (
            '<doc docid="a">\n<p>\n<seg id="1">One.</seg>\n<seg id="2">Two.</seg>\n</p>\n</doc>\n',
            "between tags of SGML",
        ),
        ("<CHAPTER ID=1>\nOne.\n<SPEAKER ID=1>\nTwo.\n<P>\nThree.\n<P>\n", "between tags of SGML or XML"),
        ("@UTF8\n@Begin\n@Languages:\teng\n*CHI:\tmore cookie .\n", "a transcript in CHAT"),
        ("<TEI xmlns='http://www.tei-c.org/ns/1.0'>\n<text>One.</text></TEI>\n", "TEI's XML"),
        ("<tmx><tu><tuv><seg>One.</seg></tuv><tuv><seg>Un.</seg></tuv></tu></tmx>", "between tags of SGML or XML"),
        ("<p>One.</p>\n<p>Two.</p>\n<p>Three <b>and</b> four.</p>\n", "between tags of SGML or XML"),
        ("INSERT INTO `page` VALUES (1,'One.'),(2,'Two.');\n", "an SQL dump"),
        ("[Script Info]\nTitle: One\n", "subtitles"),
        ("( (S\n  (NP-SBJ (NNP Pierre) (NNP Vinken) )\n  (VP (MD will) )))\n", "a treebank"),
        ("(3 (2 (2 The) (2 Rock)) (4 (3 is) (2 great)))\n", "a treebank"),
        ("the" + " -0.25" * 50 + "\n", "a file of vectors"),
        ("2 10\nthe" + " 0.25" * 10 + "\n", "a file of vectors"),
        ("\\data\\\nngram 1=4\n", "a model of n-grams"),
        ("101 2023 2003 1037 7099 6251 1012 102 0\n" * 3, "a file of numbers.*token ids"),
        ("the 100\nof 90\nand 80\nto 70\na 60\nin 50\nis 40\nit 30\n", "a list of words with their counts"),
        ("#begin document (bc/cctv); part 000\nbc 0 0 One CD (TOP* - - -\n", "a CoNLL file"),
        ("__label__good One.\n__label__bad Two.\n", "a file of fastText with labels.*sed"),
        ("{'id': 1, 'text': 'One.'}\n", r"Python's values.*json\.dumps"),
        ("['One', 'two']\n['Three', 'four', '.']\n", "Python's values"),
        ("window.YTD.tweets.part0 = [{}]\n", "an archive of Twitter"),
        ('# A comment.\nmsgid ""\nmsgstr ""\n', "a catalogue of gettext"),
        ("@article{one2020,\n  title={One},\n}\n", "a file of BibTeX"),
        ("From a@b.c Mon Jan 1 00:00:00 2020\nSubject: One\n\nTwo.\n", "a mailbox"),
        ("The_DT dog_NN barks_VBZ ._. A_DT cat_NN sleeps_VBZ ._.\n", "words with their tags"),
        ("the un@@ believ@@ able dog\n" * 4, "text in subwords"),
        ("the un ##believ ##able dog\n" * 4, "text in subwords"),
        ("\u2581the \u2581un believ able \u2581dog\n" * 4, "text in subwords"),
        (r"\u4e2d\u6587\u662f\u4e00\u79cd" * 8 + "\n", "escaped letters"),
        ("&#20013;&#25991;&#26159;" * 14 + "\n", "escaped letters"),
        ("=E4=B8=AD=E6=96=87=\n" * 20, "quoted-printable"),
        ("One sentence.\tUne phrase.\n" * 8, "a table without a header.*cut.*names of its columns"),
        ("a1|One sentence.|One.\n\n" * 8, "a table without a header"),
        (json.dumps(json.dumps({"text": "One."})) + "\n", "JSON in strings of JSON"),
        ('{"text": "One."},\n{"text": "Two."},\n', "line 1 is not JSON .Extra data.*correct the line"),
    ],
)
def test_what_is_recognised_and_not_read_is_refused(tmp_path: pathlib.Path, content: str, message: str) -> None:
    (tmp_path / "a").write_text(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a")
    assert read(tmp_path / "a", "lines")[0][0] == content.split("\n")[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF file.*pdftotext"),
        (b"SQLite format 3\0" + bytes(84), "an SQLite database"),
        (pickle.dumps([{"text": "One."}]), "a pickle"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Office document"),
        ("One.\nTwo.".encode("utf-16"), "UTF-16.*iconv"),
        ("One.\nTwo.".encode("utf-32"), "UTF-32.*iconv"),
        ("A cat: 吾輩は猫である。".encode("iso2022_jp"), "ISO-2022-JP.*iconv"),
        ("나는 고양이다.".encode("iso2022_kr"), "ISO-2022-KR.*iconv"),
        ("One.\nTwo.".encode("utf-16-le"), "bytes of 0"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
        (b"ORC\n\x1b\n\x03\n", "an ORC file"),
        (b"RDX3\nX\n", "an R data file"),
        (b"GGUF\x03\0\0\0", "a program or a model's weights"),
    ],
)
def test_what_is_no_text_is_refused_by_name(tmp_path: pathlib.Path, content: bytes, message: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,text\n0,One.\n1,Two, three.\n", r"a\.csv, line 3: 3 columns, expected 2 as the first line has: quote"),
        ("text,id,text\nOne.,0,Two.\n", r"a\.csv: several columns are named 'text'"),
        ('id,text\n0,"One.\n1,Two.\n2,"Three."\n3,Four.\n', r"a\.csv, line 2: not a table .* correct the row's quotes"),
    ],
)
def test_rows_that_are_not_what_the_header_says(tmp_path: pathlib.Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("id,text,\n0,One.,\n1,Two.,,\n")
    assert read(tmp_path / "a.csv")[0] == ["One.", "Two."]


def test_tags_in_a_page_of_markdown_or_in_a_document_of_wikiextractor_are_text(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.md").write_text("<p>\n<img src='a'>\n</p>\n<b>\nOne.")
    assert read(tmp_path / "a.md")[0] == ["<p>\n<img src='a'>\n</p>\n<b>\nOne."]
    (tmp_path / "wiki_00").write_text('<doc id="1" url="u" title="A">\n<br>One.\n<br>\n<br>\n</doc>\n')
    assert read(tmp_path / "wiki_00")[0] == ["<br>One.\n<br>\n<br>"]


def test_a_table_without_the_column_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_text("id,body\n0,One.\n")
    with pytest.raises(UserError, match=r"no column 'text' .columns: 'id', 'body'.*TEXT_FIELD"):
        read(tmp_path / "a.csv")
    assert read(tmp_path / "a.csv", text_field="body")[0] == ["One."]


def test_fields_of_json_lines(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"content": {"text": "One."}}\n{"content": {"text": null}}\n{"content.text": ["Two.", "3."]}\n')
    assert read(path, text_field="content.text") == (["One.", "Two.\n3."], {"null texts": 1})
    path.write_text('{"content": null}\n{"content": {"text": ["One.", null]}}\n')
    assert read(path, text_field="content.text") == (["One."], {"null texts": 1})
    path.write_text('"One."\n"Two."\n')
    assert read(path)[0] == ["One.", "Two."]
    # Lists of records, as of chats and papers; a name that stands twice elsewhere loses no text.
    path.write_text('{"a": [{"b": "One."}, {"b": ["Two.", ["3."]]}], "c": 1, "c": 2}\n{"a": []}\n')
    assert read(path, text_field="a.b") == (["One.\nTwo.\n3."], {})
    path.write_text('{"text": "bad \\ud83d half"}\n')
    assert read(path)[0] == ["bad \ufffd half"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "One."}, {"text": "Tw', r"a, element 2: truncated, or not JSON"),
        ('[{"text": "One."},', r"a is truncated: its JSON array breaks off after 1 elements"),
        ('[{"text": "One."}] [', r"goes on after the end of its JSON array"),
        ('[{"body": "One."}]', r"a, element 1: no text in the field 'text' \(fields: 'body'\)"),
        ('{"content": {"text": 5}}', r"a, line 1: no text in the field 'text' \(fields: 'content.text'\)"),
        ('{"text": [{"en": "One."}]}', r"a, line 1: no text in the field 'text', which holds a list; .*'text.en'"),
        (
            '{"text": "One.", "text": "Two."}',
            r"a, line 1 cannot be read \(the field 'text' occurs twice in one object\): correct",
        ),
        (
            '[{"text": "One.", "text": "Two."}]',
            r"a, element 1: the field 'text' occurs twice in one object; remove or rena",
        ),
        ('\x1e{"text": "One."}', r"a, line 1 is not JSON"),
        ('{"text": {"en": "One."}}', r"a, line 1: no text in the field 'text', which holds an object; .*'text.en'"),
    ],
)
def test_bad_json_is_one_sentence(tmp_path: pathlib.Path, content: str, message: str) -> None:
    (tmp_path / "a").write_text(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a")


def test_the_corpus_says_what_each_file_was_taken_for(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.json").write_text('{"text": null}\n{"text": "One.\\nTwo."}\n')
    (tmp_path / "b").write_text(WIKI)
    corpus = open_corpus(str(tmp_path / "*"), text_format="auto", text_field="text", skip_undecodable=False)
    assert list(corpus.description()) == [
        "a.json: JSON lines, which begins 'One.'",
        "b: wikiextractor's <doc>, which begins 'A'",
    ]
    assert not corpus.skipped  # until the whole file is read
    for number in range(30):
        (tmp_path / f"c{number:02d}").write_text(f"Text {number}.")
    corpus = open_corpus(str(tmp_path / "*"), text_format="auto", text_field="text", skip_undecodable=False)
    assert list(corpus.description())[2] == (
        "c00 and 29 more: plain text, a blank line between documents, which begins 'Text 0.'"
    )


def test_undecodable_lines_are_left_out_only_where_they_are_few(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"Good.\n" * 200 + b"B\xe9.\n" * 20 + b"Good.\n" * 50)
    corpus = open_corpus(str(path), text_format="auto", text_field="text", skip_undecodable=True)
    assert len(list(corpus.documents("a.txt"))) == 1
    assert corpus.skipped == {"undecodable lines": 20}
    path.write_bytes(b"Good.\n" * 50 + b"B\xe9.\n" * 50)
    with pytest.raises(UserError, match=r"a.txt: 11 of the first 61 lines are not UTF-8.*iconv"):
        open_corpus(str(path), text_format="auto", text_field="text", skip_undecodable=True)
