"""One training loop: state, step, checkpoints, logs."""
