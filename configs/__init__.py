"""Ready-made runs as commented YAML, the shipped defaults (default.yaml), and the training of embedded backbones.

No method and no benchmark.
"""
