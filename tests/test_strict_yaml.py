"""A value is what a reader sees, or the file is refused with the line."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from green_screen.space import DEFAULT_CONFIG
from green_screen.strict_yaml import YamlError, integer, number, parse, read

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10),
        ("-3", -3),
        ("0.01", 0.01),
        (".5", 0.5),
        ("5.", 5.0),
        ("1.5e-4", 0.00015),
        ("1e-3", 0.001),  # a text to YAML 1.1
        ("None", "None"),
        ("60-20-20", "60-20-20"),
        ("2.15.1", "2.15.1"),
        ("'010'", "010"),
        ('"yes"', "yes"),
        ("true", True),
        ("null", None),
        ("[1, [a, b]]", [1, ["a", "b"]]),
        ("{a: 1, b: {c: d}}", {"a": 1, "b": {"c": "d"}}),
        ("\n  - x\n  - 2 # two", ["x", 2]),
    ],
)
def test_what_is_plain_is_read(text: str, value: object) -> None:
    read = parse(f"key: {text}")["key"]
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    # Octal, sexagesimal, boolean and other values to YAML 1.1; some are texts to YAML 1.2.
    [
        *("010", "0x10", "0b11", "09", "007.5", "1_000", "1:30", "1:30.5", "-1:00", "1e400"),
        *("yes", "no", "on", "off", "Yes", "NO", "On", "OFF", "True", "FALSE"),
        *("~", "Null", "NULL", ".nan", ".inf", "-.inf", ".NaN", "2001-01-01", "=", "9" * 5000),
    ],
)
@pytest.mark.parametrize("form", ["key: {}", "key: [{}]", "key:\n  - {}", "{}: value"])
def test_what_can_be_misread_is_refused(text: str, form: str) -> None:
    with pytest.raises(YamlError, match="^line [12]: "):
        parse(form.format(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: a is given twice"),
        ("a: {b: 1, 'b ': 2}", "line 1: b is given twice"),
        ("a: &x 1\nb: *x", "line 1: an anchor"),
        ("a: *x", "line 1: an anchor"),
        ("a: 1\n<<: {b: 2}", "line 2: '<<' is a YAML merge"),
        ("a: !!str 1", "line 1: a tag"),
        ("a: !!python/name:os.system", "line 1: a tag"),
        ("%YAML 1.2\n---\na: 1", "a directive"),
        ("a: 1\n---\nb: 2", "line 2: a second document"),
        ("a:\nb: 1", "line 1: a has no value"),
        ("a: [b,\n  ]\nc:", "line 3: c has no value"),
        ("- a\n-", "line 2: '' is a YAML null"),
        ("a:\t1", "line 1: while scanning"),
        ("a:\n\tb: 1", "line 2: while scanning"),
        ("a: 1\t", "line 1: while scanning"),
        ("1: a", "line 1: the key 1 must be a text"),
        ("? [a]\n: 1", "must be a text"),
        ("a: [1, 2", "line 1: while parsing a flow sequence"),
        ("", "it is empty"),
        ("# nothing", "it is empty"),
        ("[" * 30 + "]" * 30, "more than 20"),
        # The rest of a comment to an editor; to YAML a line of its own.
        ("a: 1 # was\u2028b: 2", "line 1: the invisible character U+2028"),
        ("a: 1 # was\x85b: 2", "line 1: the invisible character U+0085"),
        ("a: 1 # was\rb: 2", "line 1: the invisible character U+000D"),
        ("a: 1\u200b", "U+200B"),
        ("a: \u202e10", "U+202E"),
        ("a: 1\x00", "U+0000"),
    ],
)
def test_other_forms_are_refused_in_one_line_that_says_where(text: str, reason: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse(text)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_utf_8_is_read_as_editors_save_it(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(f"name: Zo\u00eb{end}size: 3{end}".encode(encoding))
    assert read(path) == {"name": "Zo\u00eb", "size": 3}


@pytest.mark.parametrize(
    "encoding", ["latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp037", "shift-jis"]
)
def test_other_encodings_are_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "file.yaml"
    name = "\u5d8b" if encoding == "shift-jis" else "\u00e4"
    path.write_bytes(f"name: {name}\nsize: 3\n".encode(encoding))
    with pytest.raises(YamlError):
        read(path)


@given(
    st.dictionaries(
        st.text("abcxyz_", min_size=1).filter(lambda key: key not in ("y", "n")),
        st.lists(st.integers() | st.floats(allow_nan=False, allow_infinity=False)),
    )
)
def test_what_it_reads_is_what_yaml_reads(content: dict[str, object]) -> None:
    text = yaml.safe_dump(content)
    assert parse(text) == yaml.safe_load(text) == content


def test_numbers_are_those_that_a_reader_sees() -> None:
    assert number(" 1e3 ") == 1000 and integer("-12") == -12
    for text in ("1_000", "010", "inf", "nan", "0x10", "\uff11", "\u0664", "", "1e999", "1,5"):
        with pytest.raises(ValueError, match="no decimal number"):
            number(text)
        with pytest.raises(ValueError, match="no decimal integer"):
            integer(text)
    assert not math.isnan(number("0"))


@pytest.mark.parametrize(
    ("command", "old", "new", "encoding", "said"),
    [
        ("train", "batch_size: [4", "batch_size: [010", "utf-8", "line 9: '010' is a YAML int"),
        ("sweep", "baseline:", "factors: {}\nbaseline:", "utf-8", "factors is given twice"),
        ("train", "# The", "# The", "utf-16", "it is not UTF-8: byte 0 is 0xff"),
        ("sweep", "baseline:", "baseline: # \u00e4", "latin-1", "it is not UTF-8"),
        ("train", "  precision: float32", "", "utf-8", "baseline has no value"),
        ("train", "[None, random", "[null, random", "utf-8", "augmentation must have a level"),
    ],
)
def test_a_command_refuses_such_a_configuration(
    tmp_path: Path, command: str, old: str, new: str, encoding: str, said: str
) -> None:
    path = tmp_path / "config.yaml"
    text = DEFAULT_CONFIG.read_text()
    assert old in text
    path.write_bytes(text.replace(old, new).encode(encoding))
    settings = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    ended = subprocess.run(
        [sys.executable, "-m", f"entrypoints.{command}", "--config", str(path)],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert said in ended.stderr and "Traceback" not in ended.stderr
    assert not (tmp_path / "mlflow.db").exists()
