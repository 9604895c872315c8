"""The last bundle adjustment: intrinsics as exact as the images allow.

While a model grows, few parameters keep it stable. At the end the lens is known from all images at once, and what its
model cannot express costs training tenths of a decibel (docs/prepare.md).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpm.prepare.panorama import exact, fixed
from lpm.scenes.layouts.colmap import SUPPORTED

ENOUGH = 10
"""Images of a camera from which its principal point and all of its distortion are found; fewer do not fix them."""
WORST = 4.0
"""Observations with a larger reprojection error (pixels) are dropped, as COLMAP does while mapping."""
LEAST_SCALE = 0.02
"""Pixels, of the robust loss: no feature is placed better."""
FINE = 0.3
"""Median reprojection error, pixels, below which the fine features decide. Rendered photos have .05 to .16; real ones,
whose lens no model has exactly, .39 to .54."""


def radial_parameters(model: str, params: NDArray[np.float64]) -> NDArray[np.float64]:
    """f, cx, cy, k1, k2 of a camera with `params` of a perspective `model`."""
    at, bends = SUPPORTED[model]
    opencv = np.zeros(4 + max(2, len(bends)))
    opencv[:4], opencv[4 : 4 + len(bends)] = params[list(at)], params[list(bends)]
    return np.array([opencv[:2].mean(), *opencv[2:6]])


def refine(pycolmap: Any, model: Any, most: bool) -> None:
    """Adjusts all of pycolmap's reconstruction `model`, and drops the observations that do not fit then.

    Args:
        most: let cameras with enough images become RADIAL with a principal point, whatever model they have. OPENCV's
            tangential terms are left out: they and a shift of the principal point can hardly be told apart, and both
            together drift (AUC@3 of 60 rendered photos of a room .981 without, .937 with them; docs/prepare.md).
    """
    known = fixed(model.cameras, model.rigs)
    for key in known:
        exact(model.cameras[key])
    images = Counter(image.camera_id for image in model.images.values() if image.has_pose)
    enough = {key for key, count in images.items() if count >= ENOUGH and key not in known}
    for key in enough if most else ():
        camera = model.cameras[key]
        params = radial_parameters(camera.model.name, camera.params)
        camera.model = pycolmap.CameraModelId.RADIAL
        camera.params = params
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_principal_point = bool(enough) and enough == set(images) - known
    options.refine_sensor_from_rig = False
    # COLMAP's tolerance of 0 takes ten times as long to the same poses.
    loss = pycolmap.LossFunctionType
    options.ceres.loss_function_type, options.ceres.solver_options.function_tolerance = loss.SOFT_L1, 1e-6
    adjust(pycolmap, model, options, known)
    pycolmap.ObservationManager(model).filter_all_points3D(WORST, 1.5)
    # Soft L1 comes to the right lens from far. Where most features are placed so well, coarse ones are off by several
    # times as much, and Cauchy's loss has the fine ones decide. In photos it gives up what the lens model has least
    # exactly: .25 dB of fox and .004 of its SSIM (docs/prepare.md).
    middle = middle_error(model)
    if middle < FINE:
        options.ceres.loss_function_type, options.ceres.solver_options.function_tolerance = loss.CAUCHY, 1e-4
        options.ceres.loss_function_scale = max(middle, LEAST_SCALE)
        adjust(pycolmap, model, options, known)
        pycolmap.ObservationManager(model).filter_all_points3D(WORST, 1.5)
    model.update_point_3d_errors()


def middle_error(model: Any) -> float:
    """The median reprojection error of the observations in `model`, pixels."""
    errors = []
    for image in model.images.values():
        seen = [point for point in image.points2D if point.has_point3D()] if image.has_pose else []
        if not seen:
            continue
        world = np.array([model.points3D[point.point3D_id].xyz for point in seen])
        pixels = model.cameras[image.camera_id].img_from_cam(image.cam_from_world() * world)
        errors.append(np.linalg.norm(np.asarray(pixels) - [point.xy for point in seen], axis=1))
    return float(np.nanmedian(np.concatenate(errors))) if errors else 0.0


def adjust(pycolmap: Any, model: Any, options: Any, known: set[int]) -> None:
    """One bundle adjustment of `model`, in which the cameras `known` stay as they are."""
    if not known:
        pycolmap.bundle_adjustment(model, options)
        return
    config = pycolmap.BundleAdjustmentConfig()
    for image in model.images.values():
        if image.has_pose:
            config.add_image(image.image_id)
    for key in known:
        config.set_constant_cam_intrinsics(key)
    for rig in model.rigs.values():
        for sensor in rig.non_ref_sensors:
            config.set_constant_sensor_from_rig_pose(sensor)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
