"""Experiments over domains: conditions in, sessions of runs, tables with significance out."""
