"""Media on the ground floor: untrusted audio, decoded in child processes with limits of their own, never in the process that has the keys.

`MediaHost` runs an entry of `connectors` in a fresh child; `connectors.media.decoding` is what such entries decode with.
This front imports neither PyAV nor numpy: only the children need them.
"""

from connectors.media.host import Limits, MediaHost

__all__ = ["Limits", "MediaHost"]
