from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import servers

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    servers.postgres_binaries() is None, reason="PostgreSQL is not installed"
)


def blocks() -> list[str]:
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    return re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def run_script(script: str, folder: Path, environment: dict[str, str]) -> str:
    # A session of its own: what the script left behind is ended with it, also when it failed.
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    log = folder / "server.log"
    told = log.read_text()[-3000:] if log.is_file() else ""
    assert shell.returncode == 0, f"{output}\n{told}"
    return output


def test_the_documented_deployment_runs_as_written(tmp_path: Path) -> None:
    with servers.postgresql() as database:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "SERVER": str(tmp_path),
            "PORT": str(servers.free_port()),
            "PGHOST": str(database.folder),
            "PGPORT": str(database.port),
            "PGUSER": servers.POSTGRES_USER,
        }
        anonymous = """
            status=$(curl --silent --output "$SERVER/refused" --write-out '%{http_code}' \
              "$MLFLOW_TRACKING_URI/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default")
            echo "anonymous: $status"
        """
        written = blocks()
        script = "\n".join([*written[:-2], anonymous, *written[-2:]])
        output = run_script(script, tmp_path, environment)
    assert "anonymous: 401" in output
    restored = re.search(r"runs, metrics: *(\d+) \| *(\d+) *; restored: *(\d+) \| *(\d+)", output)
    assert restored, output
    runs, metrics, *copy = map(int, restored.groups())
    assert [runs, metrics] == copy
    assert runs >= 3  # the parent, the baseline and a run
    assert metrics > 0
    for secret in ("server.env", "campaign.env", "pgpass", "auth.ini"):
        assert (tmp_path / secret).stat().st_mode & 0o077 == 0
