"""Foundation-model detectors for adcore: Dinomaly, SuperSimpleNet, UniNet."""
