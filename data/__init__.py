"""Sources, media decoding, batching and the embedded world."""

if __name__ != "mmbridge.data":
    raise ImportError("import this package as mmbridge.data, not data")
