"""From noise to data: kernels, the loop over noise levels, runs, bounds and calibration."""
