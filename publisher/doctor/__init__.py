"""The doctor: what is right and wrong with a store, in words that its operator can act on."""

from publisher.doctor.checks import Check, Diagnosis, Level
from publisher.doctor.diagnosis import examine_store, store_diagnosis

__all__ = ["Check", "Diagnosis", "Level", "examine_store", "store_diagnosis"]
