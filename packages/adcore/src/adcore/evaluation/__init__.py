"""Evaluation: metrics on raw scores, thresholds, plots and the report; no model code."""
