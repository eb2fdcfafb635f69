"""Trains a YOLOv2 with libdarknet, whose CPU build cannot do it alone: it leaves [region]'s backward pass empty.

    python -m tests.oracle.train_region DATA CFG WEIGHTS [SEED]

The loop of examples/detector.c, train_detector, for a cfg with random=0: load_data_detection, oracle_train (which adds
the missing pass to train_network_datum), save_weights. Everything but that pass is libdarknet's own. A line for each
update, as Darknet prints it. docs/RESULTS.md has figures of it.
"""

import sys
from pathlib import Path

from darknet_compat import load_network
from darknet_compat.cfg.data import read_data, read_list
from tests.oracle import load_oracle


def main(data_path, cfg, weights, seed="1"):
    data, oracle = read_data(data_path), load_oracle()
    ours = load_network(cfg)
    head, net = ours.layers[-1].o, ours.net
    paths = read_list(data.require("train"))
    oracle.srand(int(seed))
    network = oracle.load_network(cfg)
    average = None
    while (batch := network.seen // net.batch) < net.max_batches:
        costs = []
        for _ in range(net.subdivisions):
            images, truth = oracle.load_data_detection(
                paths,
                network.batch,
                net.width,
                net.height,
                head.max,
                head.classes,
                head.jitter,
                net.hue,
                net.saturation,
                net.exposure,
            )
            costs.append(network.train_step(images, truth).cost / network.batch)
        loss = sum(costs) / len(costs)
        average = loss if average is None else average * 0.9 + loss * 0.1
        print(
            f"{batch + 1}: {loss:f}, {average:f} avg, {network.current_rate():f} rate, {network.seen} images",
            flush=True,
        )
    network.save_weights(Path(weights))


if __name__ == "__main__":
    main(*sys.argv[1:])
