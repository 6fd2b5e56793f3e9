import pytest

from wootz.passes.errors import WootzError
from wootz.runtime.executors import shares
from wootz.runtime.executors.shares import check_workers, gpu_of, own_cores, shared_machine, threads_beside

FOUR = frozenset(range(4))


def test_workers_that_share_cores_get_equal_parts() -> None:
    assert threads_beside(FOUR, [FOUR]) == 4
    assert threads_beside(FOUR, [FOUR] * 3) == 1
    assert threads_beside(FOUR, [FOUR] * 9) == 1


def test_workers_that_were_bound_to_cores_use_them_all() -> None:
    low, high = frozenset({0, 1}), frozenset({2, 3})
    assert threads_beside(low, [low, high]) == 2
    assert threads_beside(low, [low, low, high]) == 1


def test_gpus_are_shared_where_they_are_fewer() -> None:
    assert [gpu_of(worker, 2) for worker in range(5)] == [0, 1, 0, 1, 0]
    assert gpu_of(3, 0) is None


def test_given_threads_are_not_divided() -> None:
    assert [place.threads for place in shared_machine(2, threads=3)] == [3, 3]
    assert [place.threads for place in shared_machine(1)] == [len(own_cores())]


@pytest.mark.parametrize(
    ("workers", "cores", "gpus", "files", "message"),
    [
        (9999, 2, 0, None, "this machine has 2 cores, and workers without one of their own .*: give 2, or at most 32$"),
        (17, 1, 0, None, "this machine has 1 core, and workers"),
        (130, 4, 8, None, "this machine has 4 cores and 8 GPUs, .*: give 8, or at most 128$"),
        (120, 128, 0, 1024, "each takes 8 open files, and a process may have 1024 here: raise .* at most 115$"),
    ],
)
def test_more_workers_than_a_machine_bears_are_refused(workers, cores, gpus, files, message, monkeypatch) -> None:
    monkeypatch.setattr(shares, "own_cores", lambda: frozenset(range(cores)))
    monkeypatch.setattr(shares, "open_files_limit", lambda: files)
    with pytest.raises(WootzError, match=f"^--workers {workers}: {message}") as refusal:
        check_workers(workers, gpus)
    most = int(str(refusal.value).rpartition(" ")[2])
    check_workers(most, gpus)
    with pytest.raises(WootzError):
        check_workers(most + 1, gpus)
