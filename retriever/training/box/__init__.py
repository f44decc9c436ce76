"""The head of the encoder in the box and how it is trained (see `head`)."""
