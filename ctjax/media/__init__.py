"""Reading and writing sound and pictures on the host; no jax."""
