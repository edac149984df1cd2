"""Conversion of PyTorch checkpoints to bundles and back: `python -m convert`."""
