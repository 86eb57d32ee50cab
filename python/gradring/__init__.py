"""gradring: train neural networks straight from NumPy arrays, natively."""
