"""gcnn: pulmonary nodules in chest CT with 3D group-equivariant CNNs."""

__version__ = "0.1.0"

NOTICE = "For research use only. Not a medical device; not for diagnosis."
