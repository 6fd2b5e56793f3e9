"""How good a network is at its task: what that is measured by, and how it is shown."""
