"""What this processor does by itself."""

from __future__ import annotations

from pathlib import Path


def _flags() -> set[str]:
    """The names that Linux has for it; none on other systems."""
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()


def has_bf16() -> bool:
    """Does this processor multiply bf16 numbers by itself?"""
    return bool(_flags() & {"avx512_bf16", "amx_bf16"})


def has_vnni() -> bool:
    """Does this processor add up products of 8-bit numbers in 32 bits by itself?"""
    return bool(_flags() & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})
