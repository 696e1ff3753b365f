"""Passes of a Llama-shaped decoder written by hand for CPUs: training with packed rows, decoding with shared caches.

Whether a backbone and a kind of adapter can be served here is decided in `harness.engines`.
"""
