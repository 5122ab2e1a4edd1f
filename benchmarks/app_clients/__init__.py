"""Many people at once: the web app under clients that check every map they get."""
