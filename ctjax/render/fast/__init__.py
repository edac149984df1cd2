"""The face-vid2vid renderer in a faster formulation of the same numbers; see `renderer`."""
