"""Named, weighted losses, one module each."""
