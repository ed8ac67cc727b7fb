"""One trainer, many objectives: a run is a pure function of its seed, so a killed run continues as if nothing happened."""
