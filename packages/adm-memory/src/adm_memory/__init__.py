"""Memory models for adcore: PaDiM, PatchCore."""
