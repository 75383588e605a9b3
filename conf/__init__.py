"""Every knob of a night: typed, with its unit, in one place."""
