"""The weights of the LLM that perceptual tokens and text activate, as masks."""
