"""Trainable modules that turn features into perceptual tokens."""

if __name__ != "mmbridge.connectors":
    raise ImportError("import this package as mmbridge.connectors, not connectors")
