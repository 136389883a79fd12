"""What holds for every test: Hypothesis measures nothing. A slow machine is no failure, and CI's own profile stays underneath."""

from hypothesis import settings

settings.register_profile("soundcheck", settings(), deadline=None)
settings.load_profile("soundcheck")
