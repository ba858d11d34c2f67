"""Settings of Keras's user and of the environment: made explicit, told, or refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoints import sweep
from green_screen.options import OptionError
from green_screen.training.settings import check_flags, check_settings, execution_settings

ROOT = Path(__file__).parents[2]

BUILD = """
import json
import tensorflow as tf
from green_screen.space import Space
from green_screen.training.setup import compiled_model
baseline = Space.load().baseline
model = compiled_model(
    "resnet8", baseline, image_size=32, n_classes=10, total_steps=10, seed=1
)
backend = tf.keras.backend
print(json.dumps({
    "n_parameters": model.count_params(),
    "settings": [backend.image_data_format(), backend.floatx(), backend.epsilon()],
    "policy": tf.keras.mixed_precision.global_policy().name,
    "metrics": sorted({v.dtype.name for metric in model.metrics for v in metric.variables}),
}))
"""


def test_a_network_is_the_same_whatever_the_settings_of_keras(tmp_path: Path) -> None:
    settings = {"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.01}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    built = subprocess.run(
        [sys.executable, "-c", BUILD],
        cwd=ROOT,
        env=os.environ | {"KERAS_HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout.splitlines()[-1]) == {
        "n_parameters": 134_858,
        "settings": ["channels_last", "float32", 1e-7],
        "policy": "float32",
        "metrics": ["float32"],
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"floatx": "bfloat16"}', "floatx .* must be one of float16, .* but is 'bfloat16'"),
        ('{"image_data_format": "NCHW"}', "image_data_format .* but is 'NCHW'"),
        ('{"floatx": ["float32"]}', "floatx"),
        ('{"epsilon": 1}', "epsilon .* but is 1:"),
        ("[]", "must be an object"),
    ],
)
def test_keras_settings_that_end_its_import_are_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "keras.json").write_text(text)
    with pytest.raises(OptionError, match=said):
        check_settings({"KERAS_HOME": str(tmp_path)})


@pytest.mark.parametrize("text", ["not json", "{}", '{"epsilon": 1e-7, "backend": "torch"}'])
def test_keras_settings_that_keras_can_be_imported_with_are_not(tmp_path: Path, text: str) -> None:
    (tmp_path / "keras.json").write_text(text)
    check_settings({"KERAS_HOME": str(tmp_path)})
    check_settings({"KERAS_HOME": str(tmp_path / "nowhere")})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TF_USE_LEGACY_KERAS", "1"),
        ("TF_USE_LEGACY_KERAS", "true"),
        ("TF_XLA_FLAGS", "--tf_xla_cpu_global_jit --tf_xla_auto_jit=2"),
        ("TF_XLA_FLAGS", "--tf_xla_auto_jit=fusible"),
        ("XLA_FLAGS", "--xla_no_such_flag=1"),  # would abort each run
    ],
)
def test_a_campaign_that_cannot_work_under_a_variable_is_refused_by_its_name(
    store: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv(name, value)
    assert sweep.main(["--n_runs", "1"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"sweep: {name}") and "unset it" in said


def test_flags_that_xla_knows_are_not_refused() -> None:
    check_flags(os.environ | {"XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false"})


def test_variables_that_change_nothing_are_not_refused() -> None:
    check_settings({"TF_USE_LEGACY_KERAS": "0", "TF_XLA_FLAGS": "--tf_xla_auto_jit=-1"})


def test_what_changes_the_execution_is_told_and_nothing_else() -> None:
    told = {
        "CUDA_MODULE_LOADING": "LAZY",
        "NVIDIA_TF32_OVERRIDE": "0",
        "OMP_NUM_THREADS": "4",
        "TF_CUDNN_DETERMINISTIC": "1",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_XLA_FLAGS": "--tf_xla_cpu_global_jit",
    }
    others = {
        "CUDA_VERSION": "12.2",
        "CUDA_VISIBLE_DEVICES": "0",
        "HOME": "/home/me",
        "KMP_DUPLICATE_LIB_OK": "True",
        "KMP_INIT_AT_FORK": "FALSE",
        "NVIDIA_REQUIRE_CUDA": "cuda>=12.0",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "TF_CLI_CONFIG_FILE": "/home/me/.terraformrc",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_LOG": "INFO",
        "TF_TOKEN_app_terraform_io": "a secret of Terraform's",
        "TF_VAR_region": "eu-north-1",
        "XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false",  # a tag of its own
    }
    expected = ", ".join(f"{name}={value}" for name, value in told.items())
    assert execution_settings(others | told) == expected
    assert execution_settings(others) == "none"
