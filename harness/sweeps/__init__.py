"""Many runs from one file: sweeps (methods x seeds x options) and plans (phases with gates)."""
