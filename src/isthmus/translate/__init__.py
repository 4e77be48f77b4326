"""From policies and discovered objects to Istio objects and statuses. `Engine` is the way in."""

from isthmus.translate.engine import INPUTS, Engine
from isthmus.translate.output import Output, OutputKey, StatusKey, Translation
from isthmus.translate.trust.facts import RootFacts

__all__ = ["INPUTS", "Engine", "Output", "OutputKey", "RootFacts", "StatusKey", "Translation"]
