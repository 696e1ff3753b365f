"""The methods that ship with the harness: one file each, named as its entry point, its config and its row.

They import only the public `harness` and have no privileges over a stranger's plugin.
"""
