"""Durations from headers: what a few KiB of an object say about how much audio it has.

Our own parsers, in Python and bounded: they decode nothing, so they may run in the process that has the keys. PyAV wants to read more
than they do, and an index of hours of mp4 is longer than all that may be read here.
"""

from connectors.media.durations.parsers import estimate
from connectors.media.durations.ranges import Ranges, Wanted
from connectors.media.durations.tracks import NoAudioTrack

__all__ = ["NoAudioTrack", "Ranges", "Wanted", "estimate"]
