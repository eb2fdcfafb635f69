"""What scripts for other programs import, in their own words: AlexeyAB's darknet.py, OpenCV 4's reader of Darknet."""
