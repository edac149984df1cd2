"""The face-vid2vid renderer, one network a file."""
