"""gradtoken's methods with the interfaces of other libraries."""
