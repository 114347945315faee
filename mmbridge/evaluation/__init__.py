"""Metrics, and the runs that measure a bridge with them."""
