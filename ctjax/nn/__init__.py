"""Torch-exact building blocks; no word of the domain and nothing of the rest of ctjax."""
