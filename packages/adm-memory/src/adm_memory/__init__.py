"""Memory and feature adaptation models for adcore: PaDiM, PatchCore, DFKDE, DFM, CFA."""
