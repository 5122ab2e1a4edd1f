"""gradtoken's methods behind other libraries' interfaces."""
