"""From rates to keep-sets to pruned networks."""
