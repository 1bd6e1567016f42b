"""A team of agents reads the project's own documentation, on the bus: ``neuralcore demo``."""
