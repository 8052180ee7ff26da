"""The runtimes and processors that `make verify-all` compares, and what sets them up."""
