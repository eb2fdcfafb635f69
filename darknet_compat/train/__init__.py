"""Training as Darknet does it: images and truth, schedule, optimiser, loop, checkpoints."""
