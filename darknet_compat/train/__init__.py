"""Training as Darknet does it: pictures and truth, schedule, optimiser, loop, checkpoints."""
