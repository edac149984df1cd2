"""From a source and a sound to a talking face."""
