"""Convolutions in faster formulations than the direct one; each computes the same numbers up to rounding."""
