"""Distillation: what only a score knows becomes a calibrated energy."""
