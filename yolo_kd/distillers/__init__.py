"""Distillation methods: one file each, listed here by name as "module:Class" so that importing this loads none."""

from __future__ import annotations

DISTILLERS: dict[str, str] = {
    "csgr": "yolo_kd.distillers.csgr:CSGR",
    "pcd": "yolo_kd.distillers.pcd:PCD",
    "lqe": "yolo_kd.distillers.lqe:LQE",
    "mar": "yolo_kd.distillers.mar:MAR",
    "pkd": "yolo_kd.distillers.pkd:PKD",
    "native": "yolo_kd.distillers.native:Native",
}
