"""`remac ground`: archives of streams and pictures, on worker processes or a Dask cluster."""
