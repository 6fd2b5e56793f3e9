"""The same tasks on each kind of engine, by a program that is started as users start theirs."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
from toys import Toy

from wootz.passes.errors import WootzError
from wootz.runtime.executors.engine import Cancelled, Ended, Raised, Returned, WorkerLost
from wootz.runtime.executors.team import gathered

ALONE = "this process"
KINDS = [ALONE, "2 processes", "3 ranks of MPI", "2 workers of Dask"]


@pytest.fixture(params=KINDS)
def perform(request, drive) -> Iterator[Callable[..., dict[Toy, Ended]]]:
    """Has toys performed. Returns how each ended."""
    with contextlib.ExitStack() as stack:
        options: dict = {}
        if request.param == "2 processes":
            options = {"workers": 2}
        elif request.param == "3 ranks of MPI":
            options = {"before": request.getfixturevalue("mpiexec")(3)}
        elif request.param == "2 workers of Dask":
            cluster = request.getfixturevalue("dask_cluster")
            for _ in range(2):
                stack.enter_context(cluster.worker())
            options = {"executor": cluster.address}

        def start(*toys: str, **more: object) -> dict[Toy, Ended]:
            return {ended.task: ended for ended in drive(*toys, **options, **more).ended()}

        start.kind = request.param
        yield start


def test_each_task_ends_in_its_own_way(perform, tmp_path) -> None:
    squares = [Toy("square", n) for n in range(7)]
    lost = [] if perform.kind == ALONE else ["die"]
    cancelled = [] if perform.kind == ALONE else ["until-cancelled:1"]
    ended = perform("fail", *lost, "refuse", *cancelled, *(f"square:{toy.number}" for toy in squares))

    assert {toy: ended.pop(toy).how for toy in squares} == {toy: Returned(toy.number**2) for toy in squares}
    fail, refuse = ended.pop(Toy("fail")), ended.pop(Toy("refuse"))
    assert isinstance(fail.how, Raised)
    assert (fail.how.error, fail.how.is_user_error) == ("ZeroDivisionError: on purpose", False)
    assert "in play" in fail.how.traceback
    assert isinstance(refuse.how, Raised)
    assert (refuse.how.error, refuse.how.is_user_error) == ("the data is at fault", True)
    if lost:
        assert isinstance(ended.pop(Toy("die")).how, WorkerLost)
    if cancelled:
        assert ended.pop(Toy("until-cancelled", 1)).how == Cancelled()
    assert not ended

    log = (tmp_path / "logs" / f"worker-{fail.worker}.log").read_text()
    assert "fail 0: begins on Place(" in log
    assert "ZeroDivisionError: on purpose" in log
    assert not list((tmp_path / "logs").glob("control-*"))


def test_failures_are_tried_once_more(perform) -> None:
    lost = [] if perform.kind == ALONE else ["die-once"]
    ended = perform(*lost, "fail-once", "fail", retry=True)
    assert isinstance(ended[Toy("fail-once")].how, Returned)
    assert isinstance(ended[Toy("fail")].how, Raised)
    if lost:
        assert isinstance(ended[Toy("die-once")].how, Returned)


@pytest.mark.parametrize("perform", KINDS[1:], indirect=True)
def test_a_silent_worker_costs_its_task_only(perform) -> None:
    squares = [Toy("square", n) for n in range(3)]
    ended = perform("never-ending", *(f"square:{toy.number}" for toy in squares), silence_limit=3)
    assert "it was silent for " in ended[Toy("never-ending")].how.reason
    assert all(ended[toy].how == Returned(toy.number**2) for toy in squares)


def test_a_team_says_what_it_is() -> None:
    with gathered(workers=2, threads=3) as team:
        assert (team.description, team.workers, team.per_machine) == ("2 processes of 3 threads", 2, 2)
    with gathered(threads=1) as team:
        assert (team.description, team.workers, team.per_machine) == ("this process, 1 thread", 1, 1)


@pytest.mark.parametrize(
    ("options", "started_by_mpi", "message"),
    [
        ({"executor": "ray://here:1"}, False, "ray://here:1 is no address of a scheduler: dask://HOST:PORT is one"),
        ({"executor": "dask://here"}, False, "dask://here is no address of a scheduler"),
        ({"executor": "dask://here:port"}, False, "dask://here:port is no address of a scheduler"),
        ({"executor": "dask://here:1", "workers": 2}, False, "workers of its own: leave --workers out"),
        ({"executor": "dask://here:1"}, True, "workers of its own: leave mpiexec out"),
        ({"workers": 2}, True, "as many workers as processes: leave --workers 2 out"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, started_by_mpi, message, monkeypatch) -> None:
    if started_by_mpi:
        monkeypatch.setenv("PMI_RANK", "0")
    with pytest.raises(WootzError, match=message), gathered(**options):
        pass
