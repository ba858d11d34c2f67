from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from campaigns import (
    ROOT,
    Driven,
    assert_complete,
    by_status,
    children,
    small,
    sweep_parents,
)
from mlflow.tracking import MlflowClient

from green_screen import names
from green_screen.executors.local import PRELOAD, PRELOAD_TRACKING, LocalExecutor
from green_screen.space import DEFAULT_CONFIG
from green_screen.sweep.campaign import run_sweep

FOUND = ("policy", "floatx", "seeds", "numpy_seed", "jit", "variable", "module", "names", "folder")


def test_an_import_that_fails_ends_the_campaign_with_its_reason(
    drive: Callable[..., Driven], tmp_path: Path
) -> None:
    (tmp_path / "settings_of_others.py").write_text("raise RuntimeError('no such floatx')\n")
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(tmp_path)])
    driven = drive(small(), "faulty_trainers:quick", "settings_of_others", PYTHONPATH=path)
    status, output = driven.end()
    assert status == 1 and "Traceback" not in output
    assert "sweep: the process that starts the runs ended as it imported" in output
    assert "RuntimeError: no such floatx" in output
    (parent,) = sweep_parents()
    assert parent.info.status == "FAILED"
    assert by_status(parent.info.run_id, "KILLED") == [0]


def test_nothing_leaks_from_run_to_run(drive: Callable[..., Driven], tmp_path: Path) -> None:
    preload = ",".join(("tensorflow", *PRELOAD_TRACKING))
    options = small(n_runs=2)
    status, output = drive(options, "faulty_trainers:contaminate", preload).end()
    assert status == 0, output
    (parent,) = sweep_parents()
    first, *later = children(parent.info.run_id)
    assert len(later) == 2
    assert first.data.tags["policy"] == "float32"
    assert first.data.tags["floatx"] == "float32"
    assert first.data.tags["seeds"] == "(None, None)"
    assert first.data.tags["variable"] == "None"
    assert first.data.tags["module"] == "False"
    assert first.data.tags["folder"] == str(tmp_path)
    for run in later:
        assert {tag: run.data.tags[tag] for tag in FOUND} == {
            tag: first.data.tags[tag] for tag in FOUND
        }
        difference_mib = run.data.metrics["memory_mib"] - first.data.metrics["memory_mib"]
        assert abs(difference_mib) < 50


_PARENT = """
import sys
from green_screen.options import SweepOptions
from green_screen.sweep.campaign import run_sweep
from green_screen.sweep.preparation import check_trainings, find_design
from green_screen.executors.local import LocalExecutor
from green_screen.sweep import status
if __name__ == "__main__":
    options = SweepOptions(n_runs=1, epochs=1, cooldown_timeout_s=0.0)
    check_trainings(find_design(options))
    with LocalExecutor(preload=["mlflow"]) as executor:
        run_sweep(options, trainer="faulty_trainers:quick", executor=executor)
    print(status.read_status(None).text())
    loaded = {name.partition(".")[0] for name in sys.modules}
    print("LOADED", sorted(loaded & {"tensorflow", "keras", "tensorflow_addons"}))
"""


def test_the_parent_never_imports_tensorflow(store: str, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "LOADED []" in done.stdout


def test_a_script_without_a_guard_is_told_what_went_wrong(store: str, tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    start, _, _ = _PARENT.partition("if __name__")
    script.write_text(
        f"""{start}
executor = LocalExecutor(preload=["mlflow"])
options = SweepOptions(n_runs=1, epochs=1, cooldown_timeout_s=0.0)
run_sweep(options, trainer="faulty_trainers:quick", executor=executor)
"""
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert "0 of 2 runs finished, 2 failed" in done.stderr
    (parent,) = sweep_parents()
    for run in children(parent.info.run_id):
        reason = run.data.tags[names.TAG_FAILURE]
        assert "said nothing; before its training it had printed" in reason
        assert "finished its bootstrapping phase" in reason


def test_the_documented_script_runs(store: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "campaigns.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert "n_runs=100" in example
    script = tmp_path / "example.py"
    script.write_text(example.replace("n_runs=100", "n_runs=1, epochs=2"))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (parent,) = sweep_parents()
    assert by_status(parent.info.run_id, "FINISHED") == [0, 1]


def test_a_new_interpreter_does_the_same(store: str) -> None:
    options = small(n_runs=1)
    with LocalExecutor(start="spawn") as executor:
        parent_id = run_sweep(options, trainer="faulty_trainers:quick", executor=executor)
    assert_complete(parent_id, options)


def test_a_child_has_the_environment_of_its_parent(
    store: str, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The forkserver of this process was started with another one.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-of-this-test")
    trainer = "faulty_trainers:tell_process"
    parent_id = run_sweep(small(n_runs=1), trainer=trainer, executor=executor)
    for run in children(parent_id):
        assert run.data.tags["cuda_visible_devices"] == "GPU-of-this-test"


def test_closing_twice_is_closing_once(store: str) -> None:
    executor = LocalExecutor(preload=PRELOAD_TRACKING)
    executor.close()
    executor.close()


def test_what_is_preloaded_can_be_imported_and_is_found_once() -> None:
    program = (
        f"import importlib; [importlib.import_module(module) for module in {PRELOAD!r}]\n"
        "import gc; print('frozen', gc.get_freeze_count() > 1e5 > 10 * len(gc.get_objects()))\n"
        "import codecarbon.core.util; print(codecarbon.core.util.detect_cpu_model.cache_info())\n"
        "import codecarbon.input; print('tables', 'global_energy_mix' in codecarbon.input._CACHE)"
    )
    command, environment = [sys.executable, "-c", program], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    assert "misses=1" in done.stdout
    assert "tables True" in done.stdout
    assert "frozen True" in done.stdout


def test_the_command_trains_for_real(store: str, tmp_path: Path) -> None:
    # What pip writes for it: children of a forkserver import it as their parent's main module.
    script = tmp_path / "green-screen"
    script.write_text(
        "import sys\nfrom green_screen.command.main import main\n"
        "if __name__ == '__main__':\n    sys.exit(main())\n"
    )

    def green_screen(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, str(script), *words],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    content = yaml.safe_load(DEFAULT_CONFIG.read_text())
    content["factors"] |= {"precision": ["float32"], "batch_size": [16], "lr": [0.01]}
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(content))
    options = ["--n_runs", "1", "--model", "resnet8", "--epochs", "1", "--samples", "60"]
    said = green_screen("sweep", *options, "--config", str(config))
    assert "2 of 2 runs finished, 0 failed" in said

    (parent,) = sweep_parents()
    assert by_status(parent.info.run_id, "FINISHED") == [0, 1]
    for run in children(parent.info.run_id):
        metrics, tags = run.data.metrics, run.data.tags
        assert metrics[names.ENERGY_TOTAL_J] > 0
        assert metrics[names.RUN_OVERHEAD_S] > 0
        assert metrics[names.COOLDOWN_S] == 0
        assert 0 <= metrics[names.TEST_ACCURACY] <= 1
        assert tags[names.TAG_ENERGY_SOURCE] == names.SOURCE_ESTIMATE
        assert json.loads(tags[names.TAG_RULES]) is not None
        artifacts = {file.path for file in MlflowClient().list_artifacts(run.info.run_id)}
        assert {names.LOGS_CSV, names.PARAMETERS_YAML} <= artifacts

    said = green_screen("status", "--sweep", parent.info.run_name)
    assert f"campaign {parent.info.run_id}" in said
    assert "2 of 2 runs finished, 0 under way, 0 missing" in said
    said = green_screen("analyze", "--sweep", parent.info.run_id, "--final_repeats", "0")
    assert re.search(r"^report: .*report\.html$", said, re.M)
