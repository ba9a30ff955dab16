# Where this Windows machine is, for: pgfleet agent run --location-program
#
# It needs Windows PowerShell 5.1 (System.Device is not in PowerShell 7), the Location service
# (Settings > Privacy & security > Location) and there "Let desktop apps access your location".
# As a task of SYSTEM it sees what the machine as a whole is allowed to see; a policy that turns
# location off wins over all of that. Without satellites Windows goes by Wi-Fi, and with neither
# it has the default location of somebody's settings, or nothing, which is no fix.
$ErrorActionPreference = 'Stop'
Add-Type -AssemblyName System.Device

$watcher = New-Object System.Device.Location.GeoCoordinateWatcher([System.Device.Location.GeoPositionAccuracy]::High)
try {
    $null = $watcher.TryStart($true, [TimeSpan]::FromSeconds(10))
    $end = (Get-Date).AddSeconds(30)
    while ($watcher.Position.Location.IsUnknown -and (Get-Date) -lt $end) {
        Start-Sleep -Milliseconds 200
    }
    $position = $watcher.Position
    if ($position.Location.IsUnknown) {
        [Console]::Error.WriteLine("no position: $($watcher.Status), permission $($watcher.Permission)")
        exit 1
    }
    $accuracy = $position.Location.HorizontalAccuracy
    [ordered]@{
        latitude   = $position.Location.Latitude
        longitude  = $position.Location.Longitude
        accuracy_m = $(if ([double]::IsNaN($accuracy)) { $null } else { $accuracy })
        located_at = $position.Timestamp.ToUniversalTime().ToString('o')
    } | ConvertTo-Json -Compress
} finally {
    $watcher.Dispose()
}
