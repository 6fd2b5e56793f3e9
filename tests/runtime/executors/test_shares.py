from wootz.runtime.executors.shares import gpu_of, own_cores, shared_machine, threads_beside

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
