"""The embedded world: scenes with ground truth, the language about them, and the shipped weights."""
