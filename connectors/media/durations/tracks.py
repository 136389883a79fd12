"""What containers are asked about besides their duration."""


class NoAudioTrack(Exception):
    """A container whose tracks are all known, and none of them is to be heard."""
