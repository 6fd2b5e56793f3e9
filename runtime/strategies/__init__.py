"""In which order tasks are done, and when a run is over."""
