"""Memory and feature-statistics models for adcore: PaDiM, PatchCore, DFKDE, DFM, CFA."""
