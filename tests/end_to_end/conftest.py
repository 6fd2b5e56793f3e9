import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import tiny  # noqa: E402
from tiny import Finished  # noqa: E402

REPOSITORY = Path(__file__).parents[2]
DIGITS = REPOSITORY / "examples" / "digits"
SHORT_SOLVER = (
    'base_lr: 0.05 lr_policy: "cosine" momentum: 0.9 max_iter: 40 batch_size: 32 test_interval: 20 random_seed: 1'
)
SHORT_PRETRAINING = (
    'type: "Adam" base_lr: 0.002 lr_policy: "fixed" momentum: 0.9 max_iter: 30 batch_size: 32 random_seed: 1'
)
FOUR_CONFIGURATIONS = "[[0.5, 0.5, 0.5, 0.5], [0.7, 0.5, 0.5, 0.5], [0.5, 0.5, 0.7, 0.7], [0.7, 0.5, 0.7, 0.7]]"


def run_wootz(
    *arguments: object, cwd: Path | None = None, before: tuple[str, ...] = (), tool: str = "wootz"
) -> Finished:
    """Runs a console script of this environment as a user would."""
    command = [*before, str(Path(sys.executable).parent / tool), *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "10000", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, timeout=600)
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def wootz() -> Callable[..., Finished]:
    return run_wootz


@pytest.fixture(scope="session")
def job_files(tmp_path_factory) -> Path:
    """The digits example with few configurations and few steps."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "net.prototxt").write_text((DIGITS / "net.prototxt").read_text())
    (folder / "solver.prototxt").write_text(SHORT_SOLVER)
    (folder / "pretrain.prototxt").write_text(SHORT_PRETRAINING)
    (folder / "subspace.json").write_text(FOUR_CONFIGURATIONS)
    (folder / "objective.txt").write_text("max Accuracy\nconstraint ModelSize < 0.9 * full")
    return folder


@pytest.fixture(scope="session")
def finished_run(job_files, tmp_path_factory) -> Path:
    """The directory of a whole run, with the baseline, on one thread."""
    pytest.importorskip("sklearn")
    out = tmp_path_factory.mktemp("runs") / "short"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WOOTZ_STORE", str(out.parent / "store"))
        done = run_wootz("run", job_files, "--data", "digits", "--baseline", "--threads", 1, "--out", out)
    assert done.code == 0, done.err
    return out


@pytest.fixture(scope="session")
def tiny_job(tmp_path_factory) -> Path:
    """A job whose trainings take a second together: a teacher, two blocks, three networks."""
    return tiny.make_job(tmp_path_factory.mktemp("tiny"))
