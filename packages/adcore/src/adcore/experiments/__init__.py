"""Experiments over domains: conditions, sessions of runs, tables with significance tests."""
