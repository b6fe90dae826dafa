"""Teacher-student models for adcore: STFPM, FRE, Reverse Distillation, EfficientAD."""
