"""A market without an engine: a server of its own, and a simulated market."""
