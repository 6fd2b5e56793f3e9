from wootz.runtime.executors.engine import Cancelled, Ended, Returned
from wootz.runtime.executors.simulated import Simulated

SECONDS = {"long": 10.0, "short": 2.0, "middle": 5.0, "other": 2.0}


def opened(workers: int) -> Simulated[str, int]:
    return Simulated(workers, SECONDS.__getitem__, len)


def test_time_passes_where_something_is_waited_for() -> None:
    with opened(3) as engine:
        for task in ("long", "short", "other"):
            engine.start(task)
        assert engine.wait() == [Ended("short", 1, 0, 2, Returned(5)), Ended("other", 2, 0, 2, Returned(5))]
        engine.start("middle")
        assert engine.wait(timeout=1) == []
        assert engine.now() == 3
        assert engine.wait() == [Ended("middle", 1, 2, 7, Returned(6))]
        assert engine.wait() == [Ended("long", 0, 0, 10, Returned(4))]
        assert engine.wait() == []
        assert engine.now() == 10


def test_a_cancelled_task_ends_now_and_can_be_started_again() -> None:
    with opened(2) as engine:
        engine.start("long")
        engine.start("short")
        engine.wait()
        engine.cancel("long")
        assert engine.wait() == [Ended("long", 0, 0, 2, Cancelled())]
        engine.start("long")
        assert engine.wait() == [Ended("long", 0, 2, 12, Returned(4))]


def test_one_worker_does_one_task_after_the_other() -> None:
    ends = []
    with opened(1) as engine:
        for task in SECONDS:
            engine.start(task)
            ends += [e.end for e in engine.wait()]
    assert ends == [10, 12, 17, 19]
