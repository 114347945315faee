"""Frozen networks that turn media into features."""

if __name__ != "mmbridge.encoders":
    raise ImportError("import this package as mmbridge.encoders, not encoders")
