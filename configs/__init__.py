"""One `get_config()` per recipe."""
