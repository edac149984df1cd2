"""Audio-driven talking faces in JAX: networks, inference, training and evaluation."""

__version__ = "0.1.0"
