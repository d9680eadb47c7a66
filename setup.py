"""Packaging of yolo-kd: the folders cfg/, data/ and deploy/ are installed as sub-packages of yolo_kd.

The base install with `[openvino]` or `[onnx]` is what a drone or a car needs and has no torch in it; `[train]` adds the desk
side. One OpenCV only: `opencv-python` and `opencv-python-headless` write the same folder, Albumentations asks for the
headless one, so Ultralytics is taken from its headless distribution (the same code, the same version numbers).
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
PACKAGE_DIR = {"yolo_kd": "yolo_kd", "yolo_kd.cfg": "cfg", "yolo_kd.data": "data", "yolo_kd.deploy": "deploy"}
PACKAGES = [name for name in PACKAGE_DIR] + [
    f"{name}.{sub}" for name, folder in PACKAGE_DIR.items() for sub in find_packages(str(ROOT / folder))
]
VERSION = next(
    line.split('"')[1] for line in (ROOT / "yolo_kd/__init__.py").read_text().splitlines() if "__version__" in line
)

TRAIN = [
    "ultralytics-opencv-headless>=8.4.190,<8.5",
    "torch>=2.6",
    "torchvision>=0.21",
    "albumentations>=2.0",
    "pycocotools>=2.0.8",
]
# pycocotools (1 MB, needs only NumPy) is in both, because the gate measures average precision again on the target.
OPENVINO = ["openvino>=2026.0", "nncf>=3.0", "pycocotools>=2.0.8"]
ONNX = ["onnxruntime>=1.20", "onnx>=1.17", "pycocotools>=2.0.8"]
SIGN = ["model-signing>=1.1", "pyOpenSSL>=24"]  # model-signing 1.1 imports pyOpenSSL and does not ask for it
DEV = [
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "ruff>=0.8",
    "mypy>=1.13",
    "types-PyYAML",
    "build",
    "tensorboard>=2.17",
    "mlflow-skinny>=3",
]

setup(
    name="yolo-kd",
    version=VERSION,
    description="Distil a large YOLO into a small one, quantize it honestly, run it on the device without torch",
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="AGPL-3.0-or-later",
    python_requires=">=3.10",
    package_dir=PACKAGE_DIR,
    packages=PACKAGES,
    package_data={name: ["**/*.yaml"] for name in PACKAGES},
    include_package_data=False,
    zip_safe=False,
    install_requires=["numpy>=1.26", "opencv-python-headless>=4.9", "PyYAML>=6"],
    extras_require={
        "train": TRAIN,
        "openvino": OPENVINO,
        "onnx": ONNX,
        "sign": SIGN,
        "all": TRAIN + OPENVINO + ONNX + SIGN,
        "dev": DEV,
    },
    entry_points={"console_scripts": ["yolo-kd=yolo_kd.cli:main"]},
)
