"""The files that describe the project agree with each other and with the code."""

from __future__ import annotations

import ast
import contextlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import green_screen
from green_screen.command.experiment import COMMANDS
from green_screen.command.extras import MODULES
from green_screen.options import defaults, factor_defaults

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("green_screen", "entrypoints", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def conda_pip() -> list[str]:
    content = yaml.safe_load((ROOT / "conda.yaml").read_text())
    (pip,) = (item["pip"] for item in content["dependencies"] if isinstance(item, dict))
    return pip


def pinned(requirement: str) -> tuple[str, str]:
    match = re.fullmatch(r"([a-z0-9-]+)(?:\[[a-z-]+\])?==([0-9.]+)", requirement.split(";")[0])
    assert match, f"{requirement!r} is not pinned exactly"
    return match[1], match[2]


def test_conda_yaml_holds_exactly_the_pins_of_pyproject() -> None:
    assert {pinned(text) for text in conda_pip()} == {
        pinned(text) for text in project()["optional-dependencies"]["experiment"]
    }


def test_conda_yaml_brings_cuda_on_linux_and_only_there() -> None:
    (cuda,) = [text for text in conda_pip() if "[and-cuda]" in text]
    assert "sys_platform == 'linux'" in cuda


def test_the_version_has_one_definition_and_an_entry_among_the_changes() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert content["project"]["dynamic"] == ["version"]
    dynamic = content["tool"]["setuptools"]["dynamic"]
    assert dynamic["version"] == {"attr": "green_screen.__version__"}
    changes = re.findall(r"^## (\S+),", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert changes[0] == green_screen.__version__
    # `mlflow run` does not install the project, so nothing may ask for its metadata.
    for path in PACKAGE + ENTRIES:
        assert not re.search(r"version\(.green.screen", path.read_text()), path


def test_the_experiment_is_pinned_exactly_and_the_meter_is_not() -> None:
    extras = project()["optional-dependencies"]
    for group in ("experiment", "gpu", "ray", "dev"):
        for requirement in extras[group]:
            pinned(requirement)
    pins = dict(map(pinned, extras["experiment"]))
    for requirement in (
        project()["dependencies"] + extras["carbon"] + extras["mlflow"] + extras["analysis"]
    ):
        name, least = re.split(">=", requirement.split(",")[0])
        version = [int(part) for part in pins[name].split(".")]
        assert version >= [int(part) for part in least.split(".")], requirement


def test_what_a_command_needs_is_what_its_extra_brings() -> None:
    packages = {"sklearn": "scikit-learn", "fpdf": "fpdf2"}
    for extra, modules in MODULES.items():
        brought = {
            re.split(r"[>=\[]", text)[0] for text in project()["optional-dependencies"][extra]
        }
        assert {packages.get(module, module.replace("_", "-")) for module in modules} <= brought


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-gpu.lock"])
def test_locks_hold_the_pins_and_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    blocks = re.split(r"\n(?=\S)", text)
    locked = {}
    for block in blocks:
        name, version = block.split(" ")[0].strip().split("==")
        assert "--hash=sha256:" in block, f"{name} has no hash"
        locked[re.sub(r"\[.*\]", "", name)] = version
    extras = project()["optional-dependencies"]
    wanted = extras["experiment"] + extras["dev"] + extras["ray"]
    for name, version in map(pinned, wanted):
        assert locked[name] == version
    assert ("nvidia-cudnn-cu12" in locked) == (lock == "requirements-gpu.lock")


def test_mlproject_states_the_entry_points_with_the_defaults_of_the_code() -> None:
    content = yaml.safe_load((ROOT / "MLproject").read_text())
    assert content["name"] == "green-screen"
    # MLflow reads conda.yaml under this key for conda, virtualenv and uv alike.
    assert content["conda_env"] == "conda.yaml"
    assert set(content["entry_points"]) == set(COMMANDS)
    for name, command in COMMANDS.items():
        expected = {
            **(factor_defaults() if command.factors else {}),
            **defaults(command.options),
        }
        entry = content["entry_points"][name]
        stated = {key: str(value["default"]) for key, value in entry["parameters"].items()}
        assert stated == expected, name
        words = entry["command"].split()
        assert words[:3] == ["python", "-m", f"entrypoints.{command.module or name}"]
        assert words[3:] == [word for key in expected for word in (f"--{key}", f"{{{key}}}")]


def imports(path: Path) -> set[str]:
    return imported(ast.parse(path.read_text()))


def imported(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_pickle_and_only_safe_yaml(path: Path) -> None:
    names = {name.split(".")[0] for name in imports(path)}
    assert not names & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("yaml", "load"), ("yaml", "unsafe_load")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_assertion_does_work(path: Path) -> None:
    """PYTHONOPTIMIZE takes assertions out, and what they call with them."""
    if path.is_relative_to(ROOT / "tests"):
        return
    trees = [ast.parse(path.read_text())]
    # Code that is given to other interpreters as text.
    for node in ast.walk(trees[0]):
        if isinstance(node, ast.Constant) and "assert " in str(node.value):
            with contextlib.suppress(SyntaxError):
                trees.append(ast.parse(node.value))
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Assert):
            calls = [call for call in ast.walk(node.test) if isinstance(call, ast.Call)]
            assert not calls, f"line {node.lineno}: {ast.unparse(node)}"


# Rooms and modules that stand in none, the lowest first. Each imports from those below it.
ORDER = (
    *("names", "strict_yaml", "space", "locks", "options", "output", "power", "tracking"),
    *("measurement", "network", "data", "executors", "results", "statistics", "training"),
    *("sweep", "decision", "report", "registry", "analysis", "command"),
)


PACKAGE = [path for path in SOURCES if path.is_relative_to(ROOT / "green_screen")]
ENTRIES = [path for path in SOURCES if path.is_relative_to(ROOT / "entrypoints")]


def room(module: str) -> str | None:
    """Return what of the package a module's name leads to: a room, or a module in none."""
    parts = module.split(".")
    return parts[1] if parts[0] == "green_screen" and parts[1:] and parts[1] in ORDER else None


def imported_rooms(folder: Path) -> set[str]:
    return {
        other
        for path in folder.rglob("*.py")
        for name in imports(path)
        if (other := room(name)) is not None and other != folder.name
    }


ROOMS = sorted(path.parent for path in (ROOT / "green_screen").glob("*/__init__.py"))


@pytest.mark.parametrize("folder", ROOMS, ids=lambda p: p.name)
def test_a_room_says_its_question_and_imports_only_what_it_says(folder: Path) -> None:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert text is not None and text.splitlines()[0].endswith(".")
    (said,) = re.findall(r"^Imports: (.*)\.\Z", text, re.M | re.S)
    assert set(re.split(r",\s+", said)) == imported_rooms(folder)


def test_imports_point_downwards_only() -> None:
    assert {folder.name for folder in ROOMS} <= set(ORDER)
    for number, name in enumerate(ORDER):
        path = ROOT / "green_screen" / name
        if path.is_dir():
            found = imported_rooms(path)
        else:
            found = {other for text in imports(path.with_suffix(".py")) if (other := room(text))}
        above = found & set(ORDER[number + 1 :])
        assert not above, f"{name} imports upwards: {sorted(above)}"


def test_the_tests_mirror_the_rooms() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py"))}
    # A cluster's tests start servers, nodes and campaigns: they are of no room alone.
    assert folders - {"cluster"} == {folder.name for folder in ROOMS}


# The logged model: how it is written, and the code that travels with it.
MODEL_FLAVOR = ("green_screen.training.serving", "green_screen.training.served_model")
# What serves anybody's training, and must not need the experiment's packages.
LIGHT = ("green_screen.power", "green_screen.measurement")
# Where TensorFlow may be imported. A campaign's parent must hold no GPU memory.
TRAINS = tuple(f"green_screen.{name}" for name in ("measurement", "network", "data", "training"))


# What Python 3.10 lacks, of what this package has used or could be tempted by.
LATER = {"tomllib", "datetime.UTC", "typing.Self", "typing.Never", "enum.StrEnum"}


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_oldest_python_has_what_is_imported(path: Path) -> None:
    """Meter and analysis run under 3.10; type checkers alone may see more."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if not ast.unparse(node).startswith("if TYPE_CHECKING")]
    assert not imported(tree) & LATER
    assert not {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)} & LATER


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: str(p.relative_to(ROOT)))
def test_each_library_enters_where_it_belongs(path: Path) -> None:
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    libraries = {name.split(".")[0] for name in imports(path)}
    if own != "green_screen.power.driver":
        assert "pynvml" not in libraries
    if own.startswith(LIGHT):
        assert not libraries & {"mlflow", "tensorflow_addons", "tensorflow_model_optimization"}
    if own.startswith("green_screen.power"):
        assert "tensorflow" not in libraries
    if not own.startswith(TRAINS):
        assert "tensorflow" not in libraries
    if own.startswith(TRAINS) and not own.startswith(MODEL_FLAVOR):
        assert "mlflow" not in libraries
    if own.startswith("green_screen.statistics"):
        assert "mlflow" not in libraries


@pytest.mark.parametrize("path", ENTRIES, ids=lambda p: p.name)
def test_entry_points_stay_thin(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 60
