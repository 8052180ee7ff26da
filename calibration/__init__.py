"""Calibration: a trained codec -> the integer network file, its CDF tables, and the reference bank. Its output is a contract for export."""
