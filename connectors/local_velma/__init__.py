"""The local Velma server: speaks both protocols of the seed pages on loopback, with a reference detector that is not Modulate's model."""
