"""[region]: YOLOv2's head, its boxes and its loss.

Source: ``src/region_layer.c``.

The map is (N, num*(coords+1+classes), h, w): for each of ``num`` anchors the planes x, y, w, h, those of a mask where
coords > 4, objectness, and one for each class. Boxes are numbered as in Darknet: anchor*h*w + row*w + column; as
AlexeyAB's program lists them (row*w + column)*num + anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..boxes import iou
from ..cfg import Section
from ..tree import Hierarchy, section_tree
from .base import ALEXEYAB, Place, Shape, register
from .head import Boxes, Head, HeadLoss, average_mirrored, check_anchors, fill_anchors, focal, read_class_map

if TYPE_CHECKING:
    from ..export.graph import Graph

# forward_region_layer's constants.
PRIOR_IMAGES = 12800
PRIOR_SCALE = 0.01
CLASS_ONLY = 100000  # a truth with x and y above says what the image shows, and not where
RECALL_IOU = 0.5
HIS_HIER = 0.5  # get_region_boxes of AlexeyAB's program, whatever -hier says


class RegionFigures(NamedTuple):
    """What Darknet prints about a batch, as tensors of one number each. Without a truth the means are NaN."""

    cost: Tensor
    """The sum of delta^2, before the logistic's gradient but in AlexeyAB's program: the loss that Darknet logs."""
    avg_iou: Tensor
    """Mean IOU of the truths with the boxes predicted in their slots."""
    avg_class: Tensor
    """Mean probability of the truths' classes."""
    obj: Tensor
    """Mean objectness in the truths' slots."""
    no_obj: Tensor
    """Mean objectness of all boxes."""
    avg_recall: Tensor
    """The share of truths with an IOU over .5."""
    count: Tensor  # type: ignore[assignment]  # tuple.count is not used
    """The number of truths, an integer."""


@register("region")
class Region(Head):
    """YOLOv2's head. Its values are the activated map; :meth:`boxes` and :meth:`loss` say the rest."""

    options = {
        "coords": 4,
        "classes": 20,
        "num": 1,
        "anchors": [float],
        "softmax": 0,
        "tree": str,
        "map": str,
        # for the loss
        "thresh": 0.5,
        "rescore": 0,
        "bias_match": 0,
        "classfix": 0,
        "coord_scale": 1.0,
        "object_scale": 1.0,
        "noobject_scale": 1.0,
        "class_scale": 1.0,
        "mask_scale": 1.0,
        # for the loader of images
        "jitter": 0.2,
        # which Darknet reads and does not use
        "log": 0,
        "sqrt": 0,
        "absolute": 0,
    }
    pjreddie = {"background": 0, "max": 30, "random": 0}
    alexeyab = {"max": 200, "random": 0.0, "resize": 1.0, "focal_loss": 0}

    finds_boxes = True
    alexeyabs_number = 27
    Figures = RegionFigures
    columns = ("avg_iou", "class", "obj", "no_obj", "avg_recall", "count")

    anchors: Tensor
    """(num, 2) widths and heights in cells."""
    map: Tensor | None

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        check_anchors(section, self.o.anchors, self.o.num)
        self.register_buffer("anchors", self.tensor(self.o.num, 2), persistent=False)
        tree = self.o.tree
        self.hierarchy = Hierarchy(section_tree(section, tree, self.o.classes)) if tree else None
        self.chooses_classes = self.class_only = self.hierarchy is not None
        self.register_buffer("map", read_class_map(section, self.o.map, self.o.classes), persistent=False)

    def constants(self) -> None:
        fill_anchors(self.anchors, self.o.anchors)

    def shape(self) -> Shape:
        o = self.o
        for name, least in (("num", 1), ("classes", 1), ("coords", 4), ("max", 1)):
            self.at_least(name, least)
        expected = o.num * (o.classes + o.coords + 1)
        if self.input.c != expected:
            raise self.section.error(
                f"the layer before gives {self.input.c} channels; "
                f"expected filters={expected} in the layer before: num*(classes+coords+1)"
            )
        return self.input

    @property
    def relative_anchors(self) -> Tensor:
        anchors = torch.empty(self.o.num, 2, device="cpu")
        fill_anchors(anchors, self.o.anchors)
        return anchors / torch.tensor([self.input.w, self.input.h])

    @property
    def truth_classes(self) -> int:
        return self.o.classes if self.map is None else len(self.map) - 1

    def row(self) -> str:
        return "detection"

    def forward(self, raw: Tensor) -> Tensor:
        """The activated map, of the raw map's shape (forward_region_layer_gpu).

        x, y, objectness and masks pass the logistic; classes a softmax, one per group of the tree, or without
        ``softmax`` and ``tree`` the logistic. w and h stay. With ``background`` objectness is the background's
        class instead, and takes part in the softmax.

        In AlexeyAB's program classes without ``softmax`` and ``tree`` stay too. The planes of its own output lie the
        other way round, and x and y of it have not passed the logistic yet.
        """
        o = self.o
        xy, wh, mask, objectness, classes = self._planes(raw).split([2, 2, o.coords - 4, 1, o.classes], 2)
        parts = [xy.sigmoid(), wh]
        if o.coords > 4:
            parts.append(mask.sigmoid())
        if self.hierarchy is not None:
            parts += [objectness if o.background else objectness.sigmoid(), self.hierarchy.softmax(classes, 2)]
        elif o.softmax and o.background:
            parts.append(torch.cat([objectness, classes], 2).softmax(2))
        else:
            parts.append(objectness if o.background else objectness.sigmoid())
            his = self.program == ALEXEYAB
            parts.append(classes.softmax(2) if o.softmax else classes if his else classes.sigmoid())
        return torch.cat(parts, 2).flatten(1, 2)

    def _planes(self, raw: Tensor) -> Tensor:
        """(N, num*planes, h, w) -> (N, num, planes, h, w)."""
        planes: Tensor = raw.unflatten(1, (self.o.num, self.o.coords + 1 + self.o.classes))
        return planes

    def boxes(self, output: Tensor, thresh: float, hier: float = 0.5, class_map: Sequence[int] | None = None) -> Boxes:
        """What the activated map says (get_region_detections): boxes, objectness and probabilities.

        Returns xywh (N, B, 4) relative to the network's input, objectness (N, B), and prob (N, B, classes), which is
        objectness times the class's value. Both are 0 where they are not over ``thresh``.

        With a tree prob is of one class only: where :meth:`Hierarchy.top` ends with ``hier``, and it is the
        objectness. Or with ``class_map``, a list of classes of the tree, prob is (N, B, len(class_map)), the
        probabilities of these. Without a tree ``class_map`` is not looked at.

        AlexeyAB's program (get_region_boxes, custom_get_region_detections) lists cell by cell, and gives every box an
        objectness of 1. With a tree the last class with a probability over .5 counts, by that probability.
        """
        if self.program == ALEXEYAB:
            return self._his_boxes(output, thresh, class_map)
        planes = self._planes(output)
        xywh = self._xywh(*planes[:, :, :4].unbind(2))
        scale = planes[:, :, self.o.coords]
        scale = torch.ones_like(scale) if self.o.background else scale
        objectness = torch.where(scale > thresh, scale, 0)
        classes = planes[:, :, self.o.coords + 1 :]
        if self.hierarchy is None:
            prob = objectness[:, :, None] * classes
            prob = torch.where(prob > thresh, prob, 0)
        else:
            classes = self.hierarchy.predictions(classes, 2)
            if class_map is not None:
                chosen = torch.as_tensor(class_map, device=output.device)
                prob = scale[:, :, None] * classes.index_select(2, chosen)
                prob = torch.where(prob > thresh, prob, 0)
            else:
                top = self.hierarchy.top(classes, hier, 2)
                number = torch.arange(self.o.classes, device=output.device)[:, None, None]
                prob = objectness[:, :, None] * (number == top[:, :, None])
        prob = prob.movedim(2, -1).flatten(1, 3)
        return Boxes(xywh.flatten(1, 3), objectness.flatten(1), prob)

    def _his_boxes(self, output: Tensor, thresh: float, class_map: Sequence[int] | None) -> Boxes:
        planes = self._planes(output)
        xywh = self._xywh(*planes[:, :, :4].unbind(2)).permute(0, 2, 3, 1, 4).flatten(1, 3)
        planes = planes.permute(0, 3, 4, 1, 2).flatten(1, 3)
        scale, classes = planes[..., self.o.coords, None], planes[..., self.o.coords + 1 :]
        if self.hierarchy is not None:
            classes = self.hierarchy.predictions(classes, 2)
        if self.hierarchy is not None and class_map is None:
            number = torch.arange(self.o.classes, device=output.device)
            last = torch.where(classes > HIS_HIER, number, -1).amax(2, keepdim=True)
            prob = torch.where((number == last) & (scale > thresh), classes, 0)
        else:
            chosen = (
                classes if self.hierarchy is None else classes[..., torch.as_tensor(class_map, device=output.device)]
            )
            prob = scale * chosen
            prob = torch.where(prob > thresh, prob, 0)
        return Boxes(xywh, torch.ones_like(scale[..., 0]), prob)

    def average_mirrored(self, output: Tensor, mirrored: Tensor) -> Tensor:
        return average_mirrored(output, mirrored, self.o.num)

    def _xywh(self, x: Tensor, y: Tensor, w: Tensor, h: Tensor) -> Tensor:
        """Boxes (N, num, rows, columns, 4) from the planes, x and y activated (get_region_box)."""
        rows, columns = x.shape[-2:]
        anchor_w, anchor_h = self.anchors[:, :, None, None].unbind(1)
        column = torch.arange(columns, device=x.device)
        row = torch.arange(rows, device=x.device)[:, None]
        return torch.stack(
            [(x + column) / columns, (y + row) / rows, w.exp() * anchor_w / columns, h.exp() * anchor_h / rows], -1
        )

    def loss(self, raw: Tensor, truth: Tensor, seen: int | Tensor) -> HeadLoss:
        """The loss of a raw map (forward_region_layer, backward_region_layer_gpu), in float32.

        ``truth`` (N, T, 5), T at least 1, holds rows x, y, w, h, class, relative to the image; an image's rows end
        at the first x of 0, or after ``max``. ``seen`` is the number of images of the whole training so far, these
        included.

        The gradient with respect to the map is minus what Darknet passes on: its delta, times the logistic's gradient
        for x, y and objectness. What Darknet would read or write outside of its arrays is defined here: a truth
        whose centre is outside the image takes no slot and is not counted, though boxes that overlap it are still
        spared the objectness loss; a truth of a class that is none trains its box and objectness only.

        AlexeyAB's program passes over a truth of a class beyond all. Its boxes count alike whatever their size; an
        image without places trains its class alone; without ``softmax`` and ``tree`` classes are values that the last
        truth of a slot sets.

        Waits for no device, and gives the same bits in every run. Raises CfgError where the section has an option
        whose loss is not built.
        """
        for name, built in (("coords", 4), ("background", 0), ("classfix", 0)):
            if getattr(self.o, name) != built:
                raise self.section.error(
                    f"the loss with {name}={getattr(self.o, name)} is not built here; expected {name}={built}", name
                )
        with torch.autocast(raw.device.type, enabled=False):
            return self._loss(raw.float(), truth[:, : self.o.max].float(), seen)

    def _loss(self, raw: Tensor, truth: Tensor, seen: int | Tensor) -> HeadLoss:
        o = self.o
        planes = self._planes(raw).flatten(3)
        xy, wh, objectness, classes = planes.split([2, 2, 1, o.classes], 2)
        xy, objectness = xy.sigmoid(), objectness.squeeze(2).sigmoid()
        his = self.program == ALEXEYAB

        with torch.no_grad():
            # Rows behind the end become zeros: boxes without area, which overlap nothing.
            truth = torch.where((truth[:, :, :1] != 0).cumprod(1) != 0, truth, 0)
            if his:  # passes over a truth of a class that is none
                truth = torch.where(truth[..., 4:] < o.classes, truth, 0)
            predicted = torch.cat([xy, wh], 2).unflatten(3, raw.shape[2:])
            predicted = self._xywh(*predicted.unbind(2)).flatten(1, 3)
            slots = self._slots(truth, predicted, objectness, classes, raw.shape[2:])
            over = (iou(predicted[:, None], truth[:, :, None, :4]) > o.thresh).any(1)
            # Of an image without places AlexeyAB's program trains no objectness.
            spared = slots.taken | torch.where(slots.class_only, his, over)
            no_object = (o.noobject_scale * ~spared).reshape_as(objectness)
            prior = PRIOR_SCALE * (seen < PRIOR_IMAGES) * ~(slots.taken | slots.class_only)
            prior = prior.reshape_as(objectness)[:, :, None]

        # What the boxes in the truths' slots say: (N, T, 5 + classes).
        image = torch.arange(len(raw), device=raw.device)[:, None]
        at = planes[image, slots.slot // planes.shape[3], :, slots.slot % planes.shape[3]]
        at_box = torch.cat([at[..., :2].sigmoid(), at[..., 2:4]], -1)
        at_objectness = at[..., 4].sigmoid()

        with torch.no_grad():
            overlap = iou(predicted[image, slots.slot], truth[..., :4])
            wins = slots.boxed & ~_later(slots.slot, slots.boxed).any(2)
            larger = 1 if his else 2 - truth[..., 2] * truth[..., 3]
            coord_scale = torch.where(wins, o.coord_scale * larger, 0)[..., None]
            object_goal = overlap if o.rescore else 1.0

        def slope(p: Tensor) -> Tensor:
            """The logistic's, which only AlexeyAB's delta has in it."""
            return p.detach() * (1 - p.detach()) if his else torch.ones_like(p)

        class_loss, class_cost, class_sum = self._classes(at[..., 5:], slots)
        losses, costs = zip(
            _squares(no_object, objectness, slope(objectness)),
            _squares(prior, xy - 0.5, slope(xy)),
            _squares(prior, wh),
            # The goals of rows that are no truths may be infinite, so they are taken out before anything is summed.
            _squares(
                coord_scale,
                torch.where(wins[..., None], slots.box - at_box, 0),
                torch.cat([slope(at_box[..., :2]), torch.ones_like(at_box[..., 2:])], -1),
            ),
            _squares(o.object_scale * wins, torch.where(wins, object_goal - at_objectness, 0), slope(at_objectness)),
            (class_loss, class_cost),
            strict=True,
        )
        count = slots.boxed.sum()
        figures = RegionFigures(
            cost=sum(costs),
            avg_iou=torch.where(slots.boxed, overlap, 0).sum() / count,
            avg_class=class_sum / (count + slots.class_only.sum()),
            obj=(at_objectness.detach() * slots.boxed).sum() / count,
            no_obj=(objectness.detach().flatten(1) * ~slots.class_only).sum() / objectness.numel(),
            avg_recall=(slots.boxed & (overlap > RECALL_IOU)).sum() / count,
            count=count,
        )
        return HeadLoss(sum(losses), figures)

    def line(self, figures: RegionFigures) -> str:
        """The line that Darknet prints (src/region_layer.c, forward_region_layer)."""
        _, avg_iou, avg_class, obj, no_obj, recall, count = figures
        line = (
            f"Region Avg IOU: {avg_iou:f}, Class: {avg_class:f}, Obj: {obj:f}, No Obj: {no_obj:f}, "
            f"Avg Recall: {recall:f},  count: {count:.0f}"
        )
        # 0/0 on Darknet's processors is a NaN with its sign set, and C prints that sign.
        return line.replace("nan", "-nan")

    def totals(self, figures: Sequence[RegionFigures]) -> dict[str, float]:
        """Of the mini-batches those without a truth have no say, but for ``no_obj``."""
        rows = torch.tensor(list(figures), dtype=torch.float64)
        _, avg_iou, avg_class, obj, no_obj, recall, count = rows.unbind(1)
        total = count.sum()

        def mean(values: Tensor) -> float:
            return float(torch.where(count > 0, values * count, 0).sum() / total)

        return dict(
            zip(
                self.columns,
                (mean(avg_iou), mean(avg_class), mean(obj), float(no_obj.mean()), mean(recall), int(total)),
                strict=True,
            )
        )

    def graph(self, graph: Graph, x: str) -> dict[str, str]:
        o = self.o
        if o.tree or o.background:
            raise graph.refuse(self, "[region] with tree= or background=1 has no ONNX form here")
        height, width = graph.size(x, self)
        planes = graph.reshape(x, 0, o.num, o.coords + 1 + o.classes, height, width)
        planes = graph.node("Transpose", planes, perm=[0, 1, 3, 4, 2])
        xy = graph.node("Sigmoid", graph.part(planes, 4, 0, 2))
        wh = graph.node("Exp", graph.part(planes, 4, 2, 4))
        objectness = graph.node("Sigmoid", graph.part(planes, 4, o.coords, o.coords + 1))
        classes = graph.part(planes, 4, o.coords + 1, o.coords + 1 + o.classes)
        his = self.program == ALEXEYAB
        if o.softmax or not his:
            classes = graph.node("Softmax", classes, axis=4) if o.softmax else graph.node("Sigmoid", classes)
        cells, size = graph.cells(height, width)
        anchors = graph.constant(self.anchors.reshape(1, o.num, 1, 1, 2), "anchors")
        xy = graph.node("Div", graph.node("Add", xy, cells), size)
        wh = graph.node("Div", graph.node("Mul", wh, anchors), size)
        boxes = graph.node("Concat", xy, wh, axis=4)
        probabilities = graph.node("Mul", classes, objectness)
        if his:
            probabilities = probabilities if o.softmax else graph.node("Relu", probabilities)
            boxes, probabilities = (
                graph.node("Transpose", values, perm=[0, 2, 3, 1, 4]) for values in (boxes, probabilities)
            )
        return {
            "boxes": graph.reshape(boxes, 0, -1, 4),
            "probabilities": graph.reshape(probabilities, 0, -1, o.classes),
        }

    def _slots(
        self, truth: Tensor, predicted: Tensor, objectness: Tensor, classes: Tensor, grid: Sequence[int]
    ) -> _Slots:
        """Which box each truth is for, and what it asks of it.

        ``truth`` (N, T, 5), zeros behind the end; ``predicted`` (N, B, 4), ``objectness`` (N, num, h*w) activated,
        ``classes`` (N, num, classes, h*w) raw; ``grid`` (h, w).
        """
        o, (rows, columns) = self.o, grid
        x, y, w, h, number = truth.unbind(2)
        column, row = (x * columns).trunc(), (y * rows).trunc()
        inside = (x != 0) & (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        cell = torch.where(inside, row * columns + column, 0).long()
        if o.bias_match:
            sizes = torch.stack([self.anchors[:, 0] / columns, self.anchors[:, 1] / rows], 1)
        else:
            image = torch.arange(len(truth), device=truth.device)[:, None]
            sizes = predicted.unflatten(1, (o.num, -1))[image, :, cell, 2:]
        fit = iou(F.pad(sizes, (2, 0)), F.pad(truth[:, :, None, 2:4], (2, 0)))
        # Of equal ones the first; anchor 0 where none overlaps or the IOU is no number.
        anchor = torch.where(fit > 0, fit, 0).argmax(2)
        anchor_w, anchor_h = self.anchors[anchor].unbind(-1)
        box = [x * columns - column, y * rows - row, (w * columns / anchor_w).log(), (h * rows / anchor_h).log()]
        slot = anchor * (rows * columns) + cell

        number = number.long()
        known = _in_range(number if self.map is None else self.map[_in_range(number, len(self.map) - 1)], o.classes)
        boxed = inside
        takes = inside
        class_only = torch.zeros_like(inside[:, :1])
        if self.hierarchy is not None:
            # YOLO9000's images without places: the first truth so marked counts, no other, and the map does not.
            marked = (x > CLASS_ONLY) & (y > CLASS_ONLY)
            marked = marked & (marked.cumsum(1) == 1)
            class_only = marked.any(1, keepdim=True)
            known = torch.where(marked, _in_range(number, o.classes), known)
            best = self._likeliest(self.hierarchy, (known * marked).sum(1), objectness, classes)
            slot = torch.where(marked, best[:, None], slot)
            boxed = inside & ~class_only
            takes = boxed | marked

        # One column more, for the truths that take no slot.
        taken = torch.zeros(len(truth), predicted.shape[1] + 1, dtype=torch.bool, device=truth.device)
        taken = taken.scatter(1, torch.where(takes, slot, predicted.shape[1]), True)[:, :-1]
        return _Slots(slot, torch.stack(box, -1), known, boxed, takes & (known >= 0), class_only, taken)

    def _likeliest(self, tree: Hierarchy, number: Tensor, objectness: Tensor, classes: Tensor) -> Tensor:
        """The box (N,) that most probably shows the class ``number`` (N,) (get_hierarchy_probability)."""
        path = tree.path[number]
        image = torch.arange(len(path), device=path.device)[:, None]
        steps = tree.softmax(classes, 2)[image, :, path.clamp_min(0)]
        p = objectness * torch.where((path >= 0)[..., None, None], steps, 1).prod(1)
        return torch.where(p > 0, p, 0).flatten(1).argmax(1)

    def _classes(self, z: Tensor, slots: _Slots) -> tuple[Tensor, Tensor, Tensor]:
        """Loss and cost of the classes in the truths' slots, and the sum for Avg Class (delta_region_class).

        ``z`` (N, T, classes), raw. Each way finds the goal of each value, and the values that are a truth's to train
        because no later truth has them.
        """
        scale: Tensor | float = self.o.class_scale
        later = _later(slots.slot, slots.classed)
        if self.hierarchy is not None:
            log_p = self.hierarchy.softmax(z, 2, log=True)
            p = log_p.detach().exp()
            goal, trained, counted = self._tree_goals(self.hierarchy, p, slots, later)
            loss = -(log_p * goal * trained)
        else:
            goal = (torch.arange(z.shape[2], device=z.device) == slots.known[..., None]) & slots.classed[..., None]
            trained = (slots.classed & ~later.any(2))[..., None]
            if self.o.softmax:
                log_p = z.log_softmax(2)
                p = log_p.detach().exp()
                counted = p * goal
                loss = -(log_p * goal * trained)
            elif self.program == ALEXEYAB:  # the last truth of a slot sets all classes, which are no probabilities
                p = z.detach()
                counted = p * goal
                loss = (goal.float() - z).square() / 2 * trained
            else:
                p = z.detach().sigmoid()
                opens = self._opens(p[..., 0], slots, later)
                counted = p * goal * opens[..., None]
                # The slot's classes are those of all its truths from the last one that opened it.
                stays = slots.classed & ~(later & opens[:, None]).any(2)
                together = later.mT | torch.eye(later.shape[1], dtype=torch.bool, device=z.device)
                goal = (together & stays[:, None]).float() @ goal.float() > 0
                loss = F.binary_cross_entropy_with_logits(z, goal.float(), reduction="none") * trained
            if self.program == ALEXEYAB and self.o.focal_loss:
                scale = scale * focal(counted.sum(2, keepdim=True))
        cost = (scale * (goal.float() - p) * trained).square().sum()
        return (scale * loss).sum(), cost, counted.sum()

    def _tree_goals(self, tree: Hierarchy, p: Tensor, slots: _Slots, later: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Goals of the groups on each truth's path, which a later truth takes over group by group."""
        path = tree.path[slots.known]
        node = path.clamp_min(0)
        group = torch.where(path >= 0, tree.group[node], tree.groups)
        again = (later[..., None] & (group[:, :, None] == group[:, None])).any(2)
        # One column more, for the steps that a short path lacks.
        size = (*slots.known.shape, tree.groups + 1)
        trained = torch.zeros(size, dtype=torch.bool, device=p.device)
        trained = trained.scatter(2, group, slots.classed[..., None] & ~again).index_select(2, tree.group)
        goal = F.pad(torch.zeros_like(p), (0, 1)).scatter(2, torch.where(path >= 0, path, p.shape[2]), 1)[..., :-1]
        probability = torch.where(path >= 0, p.gather(2, node), 1).prod(2)
        return goal, trained, probability * slots.classed

    def _opens(self, p0: Tensor, slots: _Slots, later: Tensor) -> Tensor:
        """Without a softmax: which truths (N, T) set all classes of their slot anew, and which only add their own.

        Darknet adds where the delta of class 0 is not zero. So the first truth of a slot sets all, those after it
        add, but for values of class 0 (``p0``) so far gone that their delta vanishes: at 0 that is while class 0 was
        none of the goals, at 1 while it was.
        """
        zero_without = self.o.class_scale * p0 == 0
        zero_with = self.o.class_scale * (1 - p0) == 0
        earlier = later.mT
        first = (slots.known == 0)[:, None]
        number = torch.arange(earlier.shape[1], device=p0.device)
        before = torch.where(earlier, number, -1).amax(2, keepdim=True)
        right_before = (earlier & first & (number == before)).any(2)
        again = (zero_without & ~(earlier & first).any(2)) | (zero_with & right_before) | (zero_without & zero_with)
        opens: Tensor = slots.classed & (~earlier.any(2) | again)
        return opens


class _Slots(NamedTuple):
    """Where a batch's truths (N, T) stand among its boxes (N, B)."""

    slot: Tensor
    """(N, T) the number of the truth's box; of no meaning where the truth takes none."""
    box: Tensor
    """(N, T, 4) what that box's x, y (activated), w and h should be."""
    known: Tensor
    """(N, T) the class, through the map; -1 where it is none."""
    boxed: Tensor
    """(N, T) does the truth train its box and objectness?"""
    classed: Tensor
    """(N, T) does it train the class?"""
    class_only: Tensor
    """(N, 1) is the image one without places?"""
    taken: Tensor
    """(N, B) is the box that of a truth?"""


def _later(slot: Tensor, takes: Tensor) -> Tensor:
    """(N, T, T): do both truths take the same slot, and the second of them after the first?"""
    same = (slot[:, :, None] == slot[:, None]) & takes[:, :, None] & takes[:, None]
    return same.triu(1)


def _in_range(number: Tensor, count: int) -> Tensor:
    """``number``, or -1 where it is not within 0..count-1."""
    return torch.where((number >= 0) & (number < count), number, -1)


def _squares(scale: Tensor, error: Tensor, slope: Tensor | float = 1) -> tuple[Tensor, Tensor]:
    """The loss scale/2 * error^2, whose gradient is Darknet's delta, and the cost: the sum of (slope * delta)^2."""
    delta = scale * error
    return (delta * error).sum() / 2, (slope * delta.detach()).square().sum()
