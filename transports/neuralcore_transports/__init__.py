"""Transports of NeuralCore, each an entry point in the group ``neuralcore.transports``."""
