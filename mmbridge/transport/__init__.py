"""Optimal transport: plans between two sets, and the losses that are made of them."""
