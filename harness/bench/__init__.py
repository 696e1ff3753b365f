"""The harness beside other ways to do the same work, on this machine.

See measure (how it is measured), ways and decoding (who does it), training and serving (which figures), report.
"""
