"""Facts about a model that passes and the planner ask for; nothing here changes a model."""
