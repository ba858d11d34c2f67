import os
import subprocess
import sys
from pathlib import Path

from green_screen.network.xla import NO_TRITON_PRODUCTS, VARIABLE, settle_flags

COMPILE = """
from green_screen.network.xla import settle_flags
import tensorflow as tf
tf.config.get_visible_devices()
settle_flags()
tf.function(lambda x: 2 * x, jit_compile=True)(tf.constant(1.0))
"""


def test_the_setting_is_there_once_and_the_users_flags_come_after_it(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert settle_flags() == settle_flags() == os.environ[VARIABLE] == NO_TRITON_PRODUCTS
    theirs = "--xla_gpu_enable_triton_gemm=true --xla_gpu_autotune_level=2"
    monkeypatch.setenv(VARIABLE, theirs)
    assert settle_flags() == settle_flags() == f"{NO_TRITON_PRODUCTS} {theirs}"


def test_flags_in_a_file_stay_and_a_file_that_cannot_be_read_is_none(monkeypatch, tmp_path):
    (tmp_path / "flags").write_text("--xla_gpu_autotune_level=2\n--xla_cpu_use_acl=false\n")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "flags"))
    both = f"{NO_TRITON_PRODUCTS} --xla_gpu_autotune_level=2 --xla_cpu_use_acl=false"
    assert settle_flags() == both
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    assert settle_flags() == NO_TRITON_PRODUCTS


def test_xla_takes_them_as_they_are_settled_after_tensorflow_is_imported(tmp_path):
    """It ends the process at a flag that it does not know; of one given twice the last holds."""
    given = tmp_path / "flags"
    given.write_text(f"--xla_dump_to={tmp_path / 'first'}\n--xla_dump_to={tmp_path / 'last'}\n")
    subprocess.run(
        [sys.executable, "-c", COMPILE],
        env={**os.environ, VARIABLE: str(given)},
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert any((tmp_path / "last").iterdir())
    assert not (tmp_path / "first").exists()
