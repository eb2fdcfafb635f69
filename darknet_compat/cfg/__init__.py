"""Darknet's texts: .cfg, .data, names and lists. Nothing here needs torch."""

from .data import DataFile, check_names, class_names, read_data, read_list, read_names
from .reader import parse_cfg, read_cfg
from .sections import ALEXEYAB_SECTIONS, SECTIONS, Cfg, Option, Section
from .writer import format_cfg, write_cfg

__all__ = [
    "ALEXEYAB_SECTIONS",
    "SECTIONS",
    "Cfg",
    "DataFile",
    "Option",
    "Section",
    "check_names",
    "class_names",
    "format_cfg",
    "parse_cfg",
    "read_cfg",
    "read_data",
    "read_list",
    "read_names",
    "write_cfg",
]
