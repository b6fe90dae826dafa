"""A trained model as a file that other programs run, compared with the model itself before it gets its name."""
