"""A talking-head world whose truth is known: synthesised speech, a mouth that follows it, and procedural heads."""
