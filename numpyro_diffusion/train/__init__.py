"""Training: data, losses, one loop for all networks, and runs that go on after a kill."""
