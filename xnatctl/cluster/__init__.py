"""Units on many machines: a dispatcher on Dask. The engine knows nothing of it.

`crew.open_crew` starts or finds workers, `coordinator` hands units to them, `worker` is what runs
there, `wire` what goes between them.
"""
