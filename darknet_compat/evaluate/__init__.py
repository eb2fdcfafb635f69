"""Scores from result files: VOC, Darknet's map and recall, COCO, comparison of two result folders. No torch here."""
