"""Many variants of one network, measured together: what they share with it is computed once."""
