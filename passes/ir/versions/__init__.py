"""How the operators of one opset are written in the next: a table for either direction, one rule a change."""
