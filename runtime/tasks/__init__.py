"""What a run computes: tasks, the recipes that their results are stored under, and the workshop that performs them."""
