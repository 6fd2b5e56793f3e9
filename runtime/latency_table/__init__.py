"""How long the pieces of a network take on one machine, and what that says of its pruned versions."""
