"""Ready-made runs as commented YAML, and the shipped defaults (default.yaml). No code."""
