"""From images to the probabilities of their classes, and from these to the lines and tables that say them."""
