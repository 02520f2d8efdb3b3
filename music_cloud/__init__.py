"""The composition root: the command line, the settings, the demo. Only here is the environment read."""
