"""Where the tasks of a run are performed: this process, processes of this machine, MPI, Dask, or invented time.

An engine knows nothing of networks. It is given a picklable function `work(task, control) -> value`, starts it for
tasks on workers, and tells how each ended. What networks, data and weights a task needs, `work` finds by itself.
"""
