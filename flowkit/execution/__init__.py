"""How work is carried out: worker processes here or on a Dask cluster, progress, stopping, memory."""
