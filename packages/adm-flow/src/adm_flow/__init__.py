"""Normalising-flow models for adcore: CFlow, FastFlow, CS-Flow, U-Flow."""
