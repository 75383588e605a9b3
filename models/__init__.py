"""The model, its training and what is made of its output. Free of imports: calibration.py and metrics.py must load without torch."""
