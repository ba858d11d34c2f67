from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers
import trainers

from green_screen import tracking
from green_screen.executors.executor import TRAINER, Job
from green_screen.options import TrainOptions
from green_screen.space import Space

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def environment_of_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the processes of a cluster import the stand-ins, and keep their files out of home."""
    patch = pytest.MonkeyPatch()
    patch.setenv("GREEN_SCREEN_SPOOL", str(tmp_path_factory.mktemp("spool")))
    patch.setenv(trainers.RELEASE, str(tmp_path_factory.mktemp("release") / "go"))
    paths = [str(ROOT), str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")]
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    yield
    patch.undo()


@pytest.fixture
def make_job(store: str) -> Callable[..., Job]:
    """Return a job on a new run of the store."""
    experiment_id = tracking.ensure_experiment()

    def make(trainer: str = TRAINER, position: int = 0, **changes: object) -> Job:
        run_id = tracking.create_child(None, f"job {position}", {}, experiment_id)
        return Job(
            position=position,
            kind="run",
            config=Space.load().baseline,
            options=TrainOptions(model="resnet8", epochs=2, samples=40, image_size=8),
            run_id=run_id,
            tracking_uri=store,
            trainer=trainer,
            **changes,  # type: ignore[arg-type]
        )

    return make


@pytest.fixture(scope="session")
def postgresql() -> Iterator[servers.PostgreSQL]:
    if servers.postgres_binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    with servers.postgresql() as running:
        yield running


@pytest.fixture(scope="session")
def server(
    postgresql: servers.PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """An MLflow server over PostgreSQL with a local artifact store."""
    with servers.mlflow_server(postgresql.uri, tmp_path_factory.mktemp("server")) as url:
        yield url
