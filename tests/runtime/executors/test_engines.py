"""Engines of this machine, in this process."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest
from toys import Toy, play

from wootz.runtime.executors.control import Place, Ticket
from wootz.runtime.executors.engine import Cancelled, Ended, Engine, Raised, Returned, WorkerLost
from wootz.runtime.executors.retrying import Retrying
from wootz.runtime.executors.team import gathered
from wootz.runtime.executors.worker import fulfil, log_file

Open = Callable[..., AbstractContextManager[Engine]]


@contextmanager
def opened(folder: Path, silence_limit: float = 60, **options) -> Iterator[Engine]:
    with gathered(**options) as team, team.engine(partial(play, folder), folder / "logs", silence_limit) as engine:
        yield engine


@pytest.fixture(params=["this process", "1 process", "2 processes"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def open_engine(kind, tmp_path) -> Open:
    workers = {"this process": 0, "1 process": 1, "2 processes": 2}[kind]
    return partial(opened, tmp_path, workers=workers)


@pytest.fixture
def open_processes(tmp_path) -> Open:
    return partial(opened, tmp_path)


def performed(engine: Engine, toys: list[Toy]) -> dict[Toy, Ended]:
    """All toys, as many at once as there are workers."""
    left, ended, under_way = list(toys), {}, 0
    while left or under_way:
        while left and under_way < engine.workers:
            engine.start(left.pop(0))
            under_way += 1
        for one in engine.wait():
            ended[one.task] = one
            under_way -= 1
    return ended


def test_nothing_under_way_is_no_reason_to_wait(open_engine) -> None:
    with open_engine() as engine:
        assert engine.wait() == []


def test_a_task_is_started_again_once(open_engine) -> None:
    noted = []
    with open_engine() as engine:
        retrying = Retrying(engine, noted.append)
        ended = performed(retrying, [Toy("fail-once")]) | performed(retrying, [Toy("fail"), Toy("refuse")])
        workers = engine.workers
    before, after = ended[Toy("fail-once")].how.value
    assert workers == 1 or before != after  # an idle one was there
    assert isinstance(ended[Toy("fail")].how, Raised)
    assert isinstance(ended[Toy("refuse")].how, Raised)
    assert sorted(str(e.task) for e in noted) == ["fail 0", "fail-once 0", "refuse 0"]


def test_where_a_disk_is_full_nothing_is_tried_again(open_engine) -> None:
    with open_engine() as engine:
        notes: list[Ended] = []
        toys = [Toy("full disk", 3), Toy("full folder")]
        ended = performed(Retrying(engine, notes.append), toys)
    assert not notes
    of_store, of_folder = (ended[toy].how for toy in toys)
    assert isinstance(of_store, Raised)
    assert isinstance(of_folder, Raised)
    assert of_store.error == "/data/3: can't be written"
    assert of_folder.error.startswith("/run/snapshot: No space left on device: what was trained is kept")
    assert of_store.is_of_storage
    assert of_folder.is_of_storage


def test_a_killed_worker_costs_its_task_only(open_processes) -> None:
    with open_processes(workers=2) as engine:
        toys = [Toy("die"), *(Toy("sleep", n) for n in (300, 301, 302))]
        ended = performed(engine, toys)
        again = performed(engine, [Toy("square", 1), Toy("square", 2)])
        assert engine.workers == 2
    assert ended[Toy("die")].how == WorkerLost("its process was killed, perhaps since memory ran out")
    assert all(ended[toy].how == Returned(toy.number) for toy in toys[1:])
    assert {toy.number: e.how for toy, e in again.items()} == {1: Returned(1), 2: Returned(4)}


def test_a_lost_task_is_started_on_another_worker(open_processes) -> None:
    noted = []
    with open_processes(workers=2) as engine:
        ended = performed(Retrying(engine, noted.append), [Toy("die-once"), Toy("die")])
    assert isinstance(ended[Toy("die-once")].how, Returned)
    assert isinstance(ended[Toy("die")].how, WorkerLost)
    assert len(noted) == 2


def test_a_task_under_way_is_cancelled(open_processes, tmp_path) -> None:
    with open_processes(workers=2) as engine:
        engine.start(Toy("until-stopped"))
        engine.start(Toy("square", 2))
        wait_for(engine, tmp_path / "began-0")
        engine.cancel(Toy("until-stopped"))
        (ended,) = ended_of(engine, Toy("until-stopped"))
    assert ended.how == Cancelled()


def test_a_silent_worker_is_given_up(open_processes) -> None:
    with open_processes(workers=1, silence_limit=0.5) as engine:
        engine.start(Toy("never-ending"))
        (ended,) = ended_of(engine, Toy("never-ending"))
        assert "silent" in ended.how.reason
        assert performed(engine, [Toy("square", 2)])[Toy("square", 2)].how == Returned(4)


def test_closing_ends_what_is_under_way(open_processes, tmp_path) -> None:
    with open_processes(workers=2) as engine:
        engine.start(Toy("place"))
        (place,) = ended_of(engine, Toy("place"))
        engine.start(Toy("never-ending"))
        engine.start(Toy("until-stopped", 1))
        wait_for(engine, tmp_path / "began-0", tmp_path / "began-1")
    assert not Path("/proc", str(place.how.value[1])).exists()
    assert list((tmp_path / "logs").glob("control-*")) == []
    assert "until-stopped 1: stopped" in "".join(f.read_text() for f in (tmp_path / "logs").iterdir())


def test_a_value_that_cannot_be_sent_is_the_tasks_error(open_processes) -> None:
    with open_processes(workers=1) as engine:
        ended = performed(engine, [Toy("unpicklable"), Toy("square", 2)])
    assert isinstance(ended[Toy("unpicklable")].how, Raised)
    assert ended[Toy("square", 2)].how == Returned(4)


def test_what_a_worker_writes_is_in_its_log(open_processes, tmp_path, capfd) -> None:
    with open_processes(workers=1) as engine:
        performed(engine, [Toy("write")])
    log = log_file(tmp_path / "logs", 0).read_text()
    assert "written by Python" in log
    assert "written by native code" in log
    assert "a warning" in log
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path) -> None:
    ticket = Ticket(tmp_path / "elsewhere", 1)
    answer = fulfil(b"", Place(3, "node7", 1), ticket, tmp_path / "logs", whole_output=False)
    assert answer.worker == 3
    assert isinstance(answer.how, Raised)
    assert answer.how.is_user_error
    assert f"{tmp_path / 'logs'} is not seen by a worker on node7" in answer.how.error
    assert not (tmp_path / "logs").exists()


def test_a_worker_that_loses_sight_of_its_driver_stops(open_processes, tmp_path) -> None:
    with open_processes(workers=1) as engine:
        engine.start(Toy("until-stopped"))
        wait_for(engine, tmp_path / "began-0")
        (control,) = (tmp_path / "logs").glob("control-*")
        shutil.rmtree(control)
        (ended,) = ended_of(engine, Toy("until-stopped"))
    assert isinstance(ended.how, WorkerLost)
    assert str(control) in ended.how.reason


def test_cores_and_gpus_are_divided(open_processes) -> None:
    with open_processes(workers=3, threads=2, gpus=2) as engine:
        toys = [Toy("place", number) for number in range(3)]
        for toy in toys:
            engine.start(toy)
        places = [e.how.value[0] for e in ended_of(engine, *toys)]
    assert {(p.worker, p.threads, p.gpu) for p in places} == {(0, 2, 0), (1, 2, 1), (2, 2, 0)}


def test_no_more_tasks_than_workers(open_processes) -> None:
    with open_processes(workers=1) as engine:
        engine.start(Toy("sleep", 100))
        with pytest.raises(ValueError, match="no worker is idle for sleep 101"):
            engine.start(Toy("sleep", 101))
        with pytest.raises(ValueError, match="sleep 100 is under way"):
            engine.start(Toy("sleep", 100))


def ended_of(engine: Engine, *toys: Toy) -> list[Ended]:
    """How these toys ended, once all have."""
    ended: dict[Toy, Ended] = {}
    while not all(toy in ended for toy in toys):
        ended |= {e.task: e for e in engine.wait()}
    return [ended[toy] for toy in toys]


def wait_for(engine: Engine, *files: Path) -> None:
    """Until the files are there."""
    while not all(file.exists() for file in files):
        engine.wait(timeout=0.05)
