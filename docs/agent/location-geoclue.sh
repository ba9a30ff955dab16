#!/bin/sh
# Where this Linux machine is, by GeoClue, for: pgfleet agent run --location-program
#
# It needs the demo program of GeoClue 2 (Debian and Ubuntu: geoclue-2-demo, Fedora:
# geoclue2-demos) and leave to use it. Without a desktop session nobody can be asked for that
# leave, so /etc/geoclue/geoclue.conf must have, before `systemctl restart geoclue`:
#
#   [where-am-i]
#   allowed=true
#   system=true
#   users=
#
# GeoClue knows no more than its sources: a modem with satellites, a phone on the network, or a
# Wi-Fi service that geoclue.conf names (the one that it was built for has closed). With none it
# may guess by the network address and be wrong by a whole city; what is rougher than 1 km is
# therefore no fix here. The program listens for 20 seconds and the last fix counts.
set -eu
PATH="$PATH:/usr/libexec/geoclue-2.0/demos:/usr/lib/geoclue-2.0/demos"

LC_ALL=C where-am-i -t 20 | LC_ALL=C awk '
  $1 == "Latitude:" { latitude = $2 + 0; found = 1 }
  $1 == "Longitude:" { longitude = $2 + 0 }
  $1 == "Accuracy:" { accuracy = $2 + 0 }
  END {
    if (!found || accuracy > 1000) exit 1
    printf "{\"latitude\": %.6f, \"longitude\": %.6f, \"accuracy_m\": %.1f}\n",
      latitude, longitude, accuracy
  }'
