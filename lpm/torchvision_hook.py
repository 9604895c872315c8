"""Lets the package index's torchvision import beside a CPU-only torch.

torchvision's wheel there is built for CUDA: next to a CPU torch its C++ part does not load, the operators that it would
have registered do not exist, and `import torchvision` ends with "operator torchvision::nms does not exist". Declaring
the two schemas that its Python part annotates is enough; nothing that this project uses calls them. `lpm-doctor
--fix` and `make setup` copy this file into the environment with a `.pth` line that imports it at start, so it stays
light: torch is touched only when torchvision is about to be imported.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_library = None  # torch.library forgets the definitions when the object dies


class _BeforeTorchvision(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            _declare()
        return None


def _declare() -> None:
    global _library
    import torch

    if torch.version.cuda is not None:
        return
    _library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS.values():
        _library.define(schema)


sys.meta_path.insert(0, _BeforeTorchvision())
