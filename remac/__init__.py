"""remac: the REMAC codec and MarsQE in PyTorch, and their training."""
