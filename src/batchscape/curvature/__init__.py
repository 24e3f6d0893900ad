"""The loss of a network as a function of its weights, with its derivatives."""
