"""What `llamabox doctor` asks the native libraries: in children, since a library that does not fit may crash."""
