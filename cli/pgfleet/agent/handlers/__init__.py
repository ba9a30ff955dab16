"""What a device can do: built-in handlers, plug-ins, and programs in a folder."""
