"""More scripts for the recogniser of the encoder in the box: its new classes, their lines, their training."""
