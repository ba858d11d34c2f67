"""What is installed beside the meter, and the sentence that names what is not."""

from __future__ import annotations

from importlib.util import find_spec

_ANALYSIS = (
    *("mlflow", "codecarbon", "pandas", "scipy", "sklearn", "statsmodels"),
    *("matplotlib", "jinja2", "fpdf"),
)
# Extra of pyproject.toml -> modules without which its commands cannot work.
MODULES = {
    "analysis": _ANALYSIS,
    "experiment": (
        *_ANALYSIS,
        *("tensorflow", "tensorflow_addons", "tensorflow_model_optimization"),
    ),
}
_WHERE = {"analysis": "", "experiment": ", with Python 3.11"}


def missing(extra: str) -> str:
    """Return what of an extra is not installed, and how it is; empty if nothing is missing."""
    for module in MODULES[extra]:
        if find_spec(module) is None:
            return (
                f"{module}, which is not installed: "
                f'pip install "green-screen[{extra}]"{_WHERE[extra]}'
            )
    return ""
