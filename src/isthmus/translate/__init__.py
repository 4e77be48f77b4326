"""From policies and discovered objects to Istio objects and statuses. `Engine` is the way in."""

from isthmus.translate.engine import INPUTS, Engine
from isthmus.translate.output import Output, OutputKey, StatusKey, Translation

__all__ = ["INPUTS", "Engine", "Output", "OutputKey", "StatusKey", "Translation"]
