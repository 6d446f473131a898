"""Settings, inference endpoints and their validation, the registry of endpoints. Imports nothing above it."""

if __name__ != "penstock.config":
    raise ImportError("import penstock.config: this folder is no package of its own")
