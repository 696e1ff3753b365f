"""Training banks of adapters: rows and waves, the model's forward, the loops, checkpoints. The door is `training`."""
