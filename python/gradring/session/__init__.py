"""Sessions: where a step runs. A session owns one model's programs, arenas and state, over one native engine."""

from gradring.session.forward import Forward
from gradring.session.results import EpochResult, Report
from gradring.session.session import Session
from gradring.session.user import UserSession

__all__ = ["EpochResult", "Forward", "Report", "Session", "UserSession"]
