"""The engine `llama_cpu`: a Llama-shaped decoder on CPUs, rows without padding, decoding with shared caches.

Whether a backbone and a kind of adapter can be served here is decided in `harness.engines.choice`.
"""
