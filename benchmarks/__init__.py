"""One file per question, with the peers in the same rounds as the bus. `python -m benchmarks` runs them all."""
