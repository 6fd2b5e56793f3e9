from processes import wait_until

from wootz.runtime.executors.engine import Returned


def test_a_scheduler_that_does_not_answer(drive) -> None:
    code, said = drive("square:1", executor="dask://127.0.0.1:9").finish()
    assert code == 1
    assert said.splitlines()[-1].startswith("error: dask://127.0.0.1:9: no Dask scheduler answers there within 10 s (")


def test_the_first_worker_is_waited_for_and_those_that_join_later_get_tasks(drive, dask_cluster, tmp_path) -> None:
    driver = drive(*(f"slow:{n}" for n in range(1, 9)), executor=dask_cluster.address)
    assert driver.process.stderr.readline() == f"{dask_cluster.address} has no workers yet: waiting for the first one\n"
    with dask_cluster.worker():
        wait_until((tmp_path / "began-1").exists)
        with dask_cluster.worker():
            ended = driver.ended()
    assert sorted(e.task.number for e in ended if isinstance(e.how, Returned)) == list(range(1, 9))
    assert {e.worker for e in ended} == {0, 1}


def test_a_worker_that_is_killed_costs_its_task_only(drive, dask_cluster, tmp_path) -> None:
    with dask_cluster.worker() as first, dask_cluster.worker():
        driver = drive("slow:1", "slow:2", executor=dask_cluster.address, retry=True)
        wait_until(lambda: (tmp_path / "began-1").exists() and (tmp_path / "began-2").exists())
        first.kill()
        ended = driver.ended()
    assert sorted(e.task.number for e in ended if isinstance(e.how, Returned)) == [1, 2]
    assert len({e.worker for e in ended}) == 1


def test_when_the_last_worker_is_killed_another_one_is_waited_for(drive, dask_cluster, tmp_path) -> None:
    with dask_cluster.worker() as first:
        driver = drive("slow:1", executor=dask_cluster.address, retry=True)
        wait_until((tmp_path / "began-1").exists)
        first.kill()
        expected = f"{dask_cluster.address} has no workers any more: waiting for one\n"
        assert driver.process.stderr.readline() == expected
    with dask_cluster.worker():
        (ended,) = driver.ended()
    assert isinstance(ended.how, Returned)
    assert ended.worker == 1


def test_a_worker_with_other_versions_is_refused(drive, dask_cluster, tmp_path) -> None:
    other = tmp_path / "other" / "numpy-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n")
    with dask_cluster.worker(), dask_cluster.worker(other.parent):
        code, said = drive("square:1", executor=dask_cluster.address).finish()
    assert code == 1
    assert "can't be used: it has numpy 0.0.1, this process " in said.splitlines()[-1]


def test_a_lost_scheduler_is_told(drive, dask_cluster, tmp_path) -> None:
    with dask_cluster.worker():
        driver = drive("slow:1", "slow:2", executor=dask_cluster.address)
        wait_until((tmp_path / "began-1").exists)
        dask_cluster.scheduler.kill()
        code, said = driver.finish()
    assert code == 1
    assert said.splitlines()[-1] == (
        f"error: {dask_cluster.address}: lost the scheduler: once it is back, the same command goes on from here"
    )
