"""Metrics, one a file, and the table they make."""
