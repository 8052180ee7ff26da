"""`remac enhance`: MarsQE on compressed pictures of any size."""
