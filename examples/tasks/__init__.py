"""Four tasks as recipes: the data, the metric, the network, and how it is trained by Wootz's own training graphs."""
