"""The documented Slurm script passes the signal on and waits for the campaign."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

STAND_INS = {
    "scontrol": "echo first-node",
    # As `srun ray symmetric-run`: runs what follows "--" as a child and passes no signal on.
    "srun": """while [ "$1" != -- ]; do shift; done; shift
"$@"; status=$?
echo "Ray has stopped"; exit $status""",
    "python": """trap 'sleep 1; echo "runs ended as KILLED"; exit 143' TERM
echo "$*"
while :; do sleep 0.1; done""",
}


def test_the_time_limit_ends_the_campaign_before_the_script(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```text\n(#!/bin/bash\n.*?)^```$", text, re.DOTALL | re.MULTILINE)
    for name, content in STAND_INS.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{content}\n")
        path.chmod(0o755)
    for empty in (tmp_path / ".venv" / "bin" / "activate", tmp_path / "campaign.env"):
        empty.parent.mkdir(parents=True, exist_ok=True)
        empty.touch()
    job = subprocess.Popen(
        ["bash", "-c", script],
        env={
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_NODELIST": "first-node",
            "SLURM_NNODES": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert job.stdout is not None
    assert job.stdout.readline().startswith("-m entrypoints.sweep --executor ray")
    job.send_signal(signal.SIGTERM)
    try:
        output, _ = job.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    assert output == "runs ended as KILLED\nRay has stopped\n"
    assert job.returncode == 143
