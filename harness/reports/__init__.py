"""What stored runs say: comparisons by name, a run read closely, scores made elsewhere, power; and their words."""
