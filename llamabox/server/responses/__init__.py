"""What goes over the wire: the shapes of replies, as pure functions of options and events."""
