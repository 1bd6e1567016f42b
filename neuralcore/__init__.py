"""NeuralCore."""
