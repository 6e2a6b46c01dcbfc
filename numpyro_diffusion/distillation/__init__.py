"""A score model becomes a calibrated energy."""
