"""Keypoint motion: head pose, expression deformation, Audio2Exp and alpha."""
