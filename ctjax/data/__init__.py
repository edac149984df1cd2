"""Records: preparing them from footage, reading them, batching them."""
