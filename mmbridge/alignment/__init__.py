"""Implicit alignment of perceptual tokens with text inside the LLM: states read at its sites, and scores of them."""
