"""Finding faces, following them, cropping them and pasting them back; host only, no jax."""
