"""The plain references: scoring written as loops over single boxes, slow and easy to check by eye.

``voc_eval`` follows py-faster-rcnn's algorithm step by step, reading included. ``detector_map`` and ``recall`` follow
AlexeyAB's and Darknet's loops, in float32 where they are.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np


def read_annotation(path):
    """Every object of one XML file, as a dictionary."""
    objects = []
    for node in ElementTree.parse(path).findall("object"):
        corners = node.find("bndbox")
        objects.append(
            {
                "name": node.find("name").text,
                "difficult": int(node.find("difficult").text),
                "bbox": [int(corners.find(side).text) for side in ("xmin", "ymin", "xmax", "ymax")],
            }
        )
    return objects


def average_precision(recall, precision, eleven_points):
    if eleven_points:
        result = 0.0
        for point in np.arange(0.0, 1.1, 0.1):
            reached = recall >= point
            result += (np.max(precision[reached]) if np.sum(reached) else 0) / 11.0
        return result
    recall = np.concatenate(([0.0], recall, [1.0]))
    precision = np.concatenate(([0.0], precision, [0.0]))
    for place in range(precision.size - 1, 0, -1):
        precision[place - 1] = np.maximum(precision[place - 1], precision[place])
    changes = np.where(recall[1:] != recall[:-1])[0]
    return np.sum((recall[changes + 1] - recall[changes]) * precision[changes + 1])


def voc_eval(lines, annotations, name, threshold=0.5, eleven_points=True):
    """AP of one class. ``lines``: of its result file; ``annotations``: image id -> list of objects."""
    truths, positives = {}, 0
    for image, objects in annotations.items():
        mine = [one for one in objects if one["name"] == name]
        difficult = np.array([one["difficult"] for one in mine]).astype(bool)
        positives += sum(~difficult)
        truths[image] = {
            "bbox": np.array([one["bbox"] for one in mine]),
            "difficult": difficult,
            "taken": [False] * len(mine),
        }
    fields = [line.strip().split(" ") for line in lines]
    confidence = np.array([float(row[1]) for row in fields])
    boxes = np.array([[float(value) for value in row[2:]] for row in fields]).reshape(-1, 4)
    order = np.argsort(-confidence)
    boxes = boxes[order, :]
    images = [fields[place][0] for place in order]

    true = np.zeros(len(images))
    false = np.zeros(len(images))
    for number in range(len(images)):
        truth = truths[images[number]]
        box = boxes[number, :].astype(float)
        greatest = -np.inf
        others = truth["bbox"].astype(float)
        if others.size > 0:
            left = np.maximum(others[:, 0], box[0])
            top = np.maximum(others[:, 1], box[1])
            right = np.minimum(others[:, 2], box[2])
            bottom = np.minimum(others[:, 3], box[3])
            width = np.maximum(right - left + 1.0, 0.0)
            height = np.maximum(bottom - top + 1.0, 0.0)
            inside = width * height
            union = (
                (box[2] - box[0] + 1.0) * (box[3] - box[1] + 1.0)
                + (others[:, 2] - others[:, 0] + 1.0) * (others[:, 3] - others[:, 1] + 1.0)
                - inside
            )
            overlaps = inside / union
            greatest = np.max(overlaps)
            which = np.argmax(overlaps)
        if greatest > threshold:
            if not truth["difficult"][which]:
                if not truth["taken"][which]:
                    true[number] = 1.0
                    truth["taken"][which] = True
                else:
                    false[number] = 1.0
        else:
            false[number] = 1.0
    false = np.cumsum(false)
    true = np.cumsum(true)
    recall = true / float(positives)
    precision = true / np.maximum(true + false, np.finfo(np.float64).eps)
    return average_precision(recall, precision, eleven_points)


def read_devkit(devkit):
    """Image id -> objects, of VOC2007 test."""
    root = Path(devkit) / "VOC2007"
    images = [line.strip() for line in (root / "ImageSets" / "Main" / "test.txt").read_text().splitlines()]
    return {image: read_annotation(root / "Annotations" / f"{image}.xml") for image in images}


def voc_eval_folder(results, annotations, names, eleven_points=True):
    """AP of every class, from its result file."""
    aps = {}
    for name in names:
        with open(Path(results) / f"comp4_det_test_{name}.txt") as file:
            lines = file.readlines()
        aps[name] = voc_eval(lines, annotations, name, eleven_points=eleven_points)
    return aps


def iou(a, b):
    """IOU of two centre boxes, float32 all the way."""
    two = np.float32(2)
    width = min(a[0] + a[2] / two, b[0] + b[2] / two) - max(a[0] - a[2] / two, b[0] - b[2] / two)
    height = min(a[1] + a[3] / two, b[1] + b[3] / two) - max(a[1] - a[3] / two, b[1] - b[3] / two)
    inside = np.float32(0) if width < 0 or height < 0 else width * height
    union = a[2] * a[3] + b[2] * b[3] - inside
    return np.float32(0) if inside == 0 or union == 0 else inside / union


def detector_map(images, classes, thresh, iou_thresh, points):
    """AlexeyAB's ``map``.

    ``images``: list of (detections, truths, difficult); detections are (class, prob, box), the others (class, box),
    boxes float32 arrays x, y, w, h. Returns APs, TP and FP per class, the sum of IOUs of TP, detections counted.
    """
    thresh, iou_thresh = np.float32(thresh), np.float32(iou_thresh)
    stored, truth_total, truth_counts = [], 0, [0] * classes
    right, wrong, iou_sum = [0] * classes, [0] * classes, 0.0
    for detections, truths, difficult in images:
        for number, _ in truths:
            truth_counts[number] += 1
        here = len(stored)
        for number, prob, box in detections:
            best, met = np.float32(0), -1
            for place, (truth_class, truth_box) in enumerate(truths):
                current = iou(box, truth_box)
                if current > iou_thresh and truth_class == number and current > best:
                    best, met = current, truth_total + place
            removed = met == -1 and any(
                iou(box, other) > iou_thresh and other_class == number for other_class, other in difficult
            )
            before = [one["met"] for one in stored[here:]]
            if not removed:
                stored.append({"class": number, "prob": prob, "met": met})
            if prob > thresh:
                if met > -1 and met not in before:
                    iou_sum += float(best)
                    right[number] += 1
                else:
                    wrong[number] += 1
        truth_total += len(truths)

    stored.sort(key=lambda one: -one["prob"])  # a merge sort: equal ones keep their order, as in glibc's qsort
    taken = set()
    curve = [[] for _ in range(classes)]  # (precision, recall) of every class at every rank
    true, false = [0] * classes, [0] * classes
    for one in stored:
        if one["met"] > -1 and one["met"] not in taken:
            taken.add(one["met"])
            true[one["class"]] += 1
        else:
            false[one["class"]] += 1
        for number in range(classes):
            counted = true[number] + false[number]
            precision = true[number] / counted if counted else 0.0
            recall = true[number] / truth_counts[number] if truth_counts[number] else 0.0
            curve[number].append((precision, recall))
    aps = []
    for number in range(classes):
        if not stored:
            aps.append(0.0)
        elif points == 0:
            precision, recall = curve[number][-1]
            area = 0.0
            for rank in range(len(stored) - 2, -1, -1):
                step = recall - curve[number][rank][1]
                recall = curve[number][rank][1]
                precision = max(precision, curve[number][rank][0])
                area += step * precision
            aps.append(area + recall * precision)
        else:
            total = 0.0
            for point in range(points):
                reached = [each for each, recall in curve[number] if recall >= point * 1.0 / (points - 1)]
                total += max(reached, default=0.0)
            aps.append(total / points)
    return {"aps": aps, "right": right, "wrong": wrong, "iou_sum": iou_sum, "detections": len(stored)}


def recall(images, thresh, iou_thresh):
    """Darknet's ``recall``. ``images``: list of (proposals, truths): (objectness, box) and boxes."""
    rows = []
    for proposals, truths in images:
        above = sum(objectness > np.float32(thresh) for objectness, _ in proposals)
        correct, iou_sum = 0, 0.0
        for truth in truths:
            best = np.float32(0)
            for objectness, box in proposals:
                current = iou(box, truth)
                if objectness > np.float32(thresh) and current > best:
                    best = current
            iou_sum += float(best)
            correct += bool(best > np.float32(iou_thresh))
        rows.append((above, len(truths), correct, iou_sum))
    return rows


def match(a, b):
    """Greedy matching of two lists of (group, prob, box): the best pair first, until none overlaps by more than .5."""
    pairs = []
    for i, (group_a, prob_a, box_a) in enumerate(a):
        for j, (group_b, prob_b, box_b) in enumerate(b):
            if group_a != group_b:
                continue
            width = max(min(box_a[2], box_b[2]) - max(box_a[0], box_b[0]) + 1.0, 0.0)
            height = max(min(box_a[3], box_b[3]) - max(box_a[1], box_b[1]) + 1.0, 0.0)
            inside = width * height
            union = (
                (box_a[2] - box_a[0] + 1.0) * (box_a[3] - box_a[1] + 1.0)
                + (box_b[2] - box_b[0] + 1.0) * (box_b[3] - box_b[1] + 1.0)
                - inside
            )
            if inside / union > 0.5:
                pairs.append((-inside / union, abs(prob_a - prob_b), i, j))
    used_a, used_b, chosen = set(), set(), []
    for _, _, i, j in sorted(pairs):
        if i not in used_a and j not in used_b:
            used_a.add(i)
            used_b.add(j)
            chosen.append((i, j))
    return sorted(chosen)
