"""What an event of localized point management is made of; still scenes and moving ones differ in the parts only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lpm.gaussians.parameters import Parameters
from lpm.multiview.photo_graph import PhotoGraph
from lpm.strategy.births import Births, BirthsInTime
from lpm.strategy.capture_times import CaptureTimes
from lpm.strategy.event_edit import EventEdit, EventEditInTime
from lpm.strategy.evidence import ViewEvidence, ViewEvidenceInTime
from lpm.strategy.false_fronts import FalseFronts, FalseFrontsInTime
from lpm.strategy.lpm4d_fields import Lpm4dFields
from lpm.strategy.lpm_fields import LpmFields
from lpm.strategy.messages import Messages
from lpm.strategy.points_at_views import MovingPoints, PointsAtViews, StillPoints
from lpm.strategy.scores import Scores, ScoresInTime
from lpm.strategy.static_cameras import Cameras
from lpm.strategy.static_zones import StaticZones
from lpm.strategy.view_choice import ViewChoice, ViewChoiceInTime
from lpm.strategy.zone_search import NoZones, PhotoZones, SameTimeHull, ShiftedZones, ZoneSearch
from lpm.zones.error_maps import ErrorMaps


@dataclass
class EventParts:
    """In the order in which an event asks them; a test or a control may put another part in the place of one."""

    points: Callable[[Parameters], PointsAtViews]
    """The parameters, as each view sees them."""
    choice: ViewChoice
    evidence: ViewEvidence
    zones: ZoneSearch
    fronts: FalseFronts
    scores: Scores
    edit: EventEdit


def still_parts(
    settings: LpmFields, graph: PhotoGraph, maps: ErrorMaps, generator: torch.Generator, messages: Messages
) -> EventParts:
    """The parts for a scene that stands still. `settings` may change from event to event."""
    evidence = ViewEvidence(settings, graph.views, maps)
    fronts, scores, births = FalseFronts(settings), Scores(settings, maps), Births(settings, graph.views)
    zones: ZoneSearch = PhotoZones(settings, graph, maps, evidence, messages)
    return EventParts(
        points=StillPoints,
        choice=ViewChoice(settings, maps, generator),
        evidence=evidence,
        zones=ShiftedZones(zones, generator) if settings.random_zones else zones,
        fronts=fronts,
        scores=scores,
        edit=EventEdit(settings, graph.views, fronts, scores, births, generator),
    )


def moving_parts(
    settings: Lpm4dFields, graph: PhotoGraph, maps: ErrorMaps, generator: torch.Generator, messages: Messages,
    capture: CaptureTimes, cameras: Cameras,
) -> EventParts:  # fmt: skip
    """The parts for a scene that moves: those that know when as well as where.

    Args:
        capture: the times of the photos. cameras: which of them stand still.
    """
    views, clock = graph.views, capture.clock.tolist()
    evidence = ViewEvidenceInTime(settings, views, maps, cameras=cameras)
    choice = ViewChoiceInTime(settings, maps, generator, capture=capture, cameras=cameras)
    fronts = FalseFrontsInTime(settings, capture=capture)
    scores = ScoresInTime(settings, maps, capture=capture)
    static = StaticZones(settings, cameras, maps)
    births = BirthsInTime(settings, views, capture=capture, cameras=cameras, static=static, choice=choice)
    zones: ZoneSearch = NoZones()
    if settings.zones_in_time != "none":
        same_time = settings.zones_in_time != "time-blind" and max(map(len, capture.same)) > 1
        hull = SameTimeHull(graph, maps, capture, static) if same_time else None
        zones = PhotoZones(settings, graph, maps, evidence, messages, hull)
    return EventParts(
        points=lambda params: MovingPoints(params, clock),
        choice=choice,
        evidence=evidence,
        zones=ShiftedZones(zones, generator) if settings.random_zones else zones,
        fronts=fronts,
        scores=scores,
        edit=EventEditInTime(settings, views, fronts, scores, births, generator),
    )
