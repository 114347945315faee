"""What a measurement of alignment found, as a page, plots, rows and text."""
