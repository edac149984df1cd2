"""Training losses and the frozen networks they look through."""
