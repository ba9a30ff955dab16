"""Where the device is: found out, judged to be news or not, and told to the server."""
