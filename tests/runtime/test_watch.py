"""What a run tells of itself, whichever task is finished first."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from msgspec.structs import asdict

from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.objective import Objective
from wootz.passes.plan.solver import Solver
from wootz.runtime.events import EventLog, PhaseStarted
from wootz.runtime.executors.engine import Ended, Returned, WorkerLost
from wootz.runtime.tasks.task import Finished, Order, PretrainBlocks
from wootz.runtime.watch import Watch

GROUPS = tuple((TuningBlock((Symbol(module, 0.5),)),) for module in range(3))
PLAN = SimpleNamespace(groups=GROUPS, candidates=(), order=(), full={Metric.MODEL_SIZE: 1000})
JOB = SimpleNamespace(
    search=None,
    objective=Objective("min", Metric.MODEL_SIZE),
    untrained=(),
    baseline=False,
    reference="given",
    pretrain_solver=Solver(),
)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("lost", [None, 0, 2])
def test_the_exploration_begins_when_no_group_of_blocks_is_left(tmp_path, order, lost):
    """Groups may be finished in any order, and one may be lost for good."""
    told: list[object] = []
    with EventLog(tmp_path / "events.jsonl", [told.append]) as log:
        watch = Watch(log, JOB)
        watch.planned(PLAN, 0.0)
        with watch.phase("exploration"):
            for left, number in zip((2, 1, 0), order, strict=True):
                task = PretrainBlocks(GROUPS[number])
                how = WorkerLost("killed") if number == lost else Returned((Finished("", {"seconds": 1.0}),))
                ended = Ended(Order(task), 0, 0.0, 1.0, how)
                if number == lost:
                    watch.failed(task, ended)
                else:
                    watch.finished(task, how.value, ended)
                phases = [event.phase for event in told if isinstance(event, PhaseStarted)]
                assert phases == ["pretraining", *(["exploration"] if not left else [])]


def test_phases_come_to_the_whole_time_with_that_of_earlier_attempts(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        watch = Watch(log, JOB, {"plan": 10.0, "teacher": 20.0, "exploration": 40.0})
        with watch.phase("plan"):
            watch.planned(PLAN, 0.0)
        with watch.phase("teacher"):
            time.sleep(0.01)
        with watch.phase("exploration"):
            task = PretrainBlocks(GROUPS[0])
            watch.finished(task, (Finished("", {}),), Ended(Order(task), 0, 0.0, 1.0, Returned(())))
            time.sleep(0.01)  # the other groups are not needed any more
        watch.delivery()
        spent = asdict(watch.seconds())
    total = spent.pop("total")
    assert total == pytest.approx(sum(spent.values()))
    assert spent["plan"] > 10
    assert spent["teacher"] >= 20.01
    assert spent["exploration"] >= 40.01
    assert 0 < spent["pretraining"] < 1
    assert spent["delivery"] > 0
